"""Test a checkpoint, in MMEngine's manner: python tools/test.py CONFIG [CHECKPOINT] [options]."""

import argparse
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import METRICS

from mmbignas.agreement import agreement_of
from mmbignas.cli import add_common_arguments, existing_checkpoint, load_config, run_tool
from mmbignas.data.check_data import check_files
from mmbignas.evaluation.drawn_predictions import OF_CLASSIFIERS, OF_DETECTORS, drawn_by, predictions_of
from mmbignas.utils.configs import type_name
from mmbignas.utils.distributed import build_runner
from mmbignas.utils.files import writing
from mmbignas.utils.rules import must_be

WITHOUT_PREDICTIONS = ('SampleFlopsLoop', 'SampleAccuracyLoop', 'SubnetSearchLoop')


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument(
        'checkpoint', nargs='?', default=argparse.SUPPRESS, help='checkpoint file (default: load_from of the config)'
    )
    parser.add_argument('--checkpoint', help='the same as an option')
    parser.add_argument('--out', metavar='FILE.pkl', help='write the predictions to this file')
    parser.add_argument('--show', action='store_true', help='show the predictions in windows')
    parser.add_argument('--show-dir', help='folder, inside the work dir of this run, for pictures of the predictions; '
                        'those of each subnet in one below it')
    parser.add_argument('--wait-time', type=float, default=2, help='seconds for which --show shows a picture')
    return parser.parse_args()


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Write the options of testing into the config.

    Raises:
        ConfigError: There is no checkpoint, or an option does not fit the config.
    """
    checkpoint = args.checkpoint or cfg.get('load_from')
    if checkpoint is None:
        raise must_be('CHECKPOINT', f'a checkpoint, as {args.config} has no load_from', None)
    cfg.load_from = existing_checkpoint(checkpoint)
    cfg.resume = False  # the config that a resumed training left in its work dir says True
    if args.out and not args.out.endswith(('.pkl', '.pickle')):
        raise must_be('--out', 'a file that ends in .pkl or .pickle', args.out)
    if args.out and not _one_network(cfg.get('test_cfg') or {}):
        raise must_be('test_cfg', 'a test of one network with --out: one of subnets, calib_bn True or False, or '
                      'an exported folder (tools/export_subnet.py)', type_name(cfg.test_cfg))
    if args.show or args.show_dir:
        if type_name(cfg.get('test_cfg') or {}) in WITHOUT_PREDICTIONS:
            raise must_be('test_cfg', 'a test of named subnets with --show and --show-dir (tools/draw_subnets.py draws '
                          'others)', type_name(cfg.test_cfg))
        hook = cfg.get('default_hooks', {}).get('visualization')
        if hook is None:
            raise must_be('default_hooks.visualization', f'dict(type=...) with {OF_DETECTORS.hook} or '
                          f'{OF_CLASSIFIERS.hook}, beside a visualizer, for --show and --show-dir', None)
        predictions = drawn_by(type_name(hook))
        hook.update(predictions.drawing(args.show_dir, cfg.work_dir), show=args.show, wait_time=args.wait_time)


def _one_network(test_cfg: Mapping[str, Any]) -> bool:
    """Say whether a test is that of a single network."""
    kind = type_name(test_cfg)
    if kind in ('SubnetValLoop', 'EvaluateSubnetLoop'):
        default = 'both' if kind == 'EvaluateSubnetLoop' else True
        return len(test_cfg.get('subnets', ('max', 'min'))) == 1 and test_cfg.get('calib_bn', default) != 'both'
    return kind not in WITHOUT_PREDICTIONS


def main() -> None:
    """Test."""
    args = parse_args()
    cfg = load_config(args)
    apply_options(cfg, args)
    check_files(cfg, ('test',))
    with writing(cfg.work_dir):
        runner = build_runner(cfg)
        agreement_of(runner)
        if args.out:
            dump = METRICS.build(dict(type=predictions_of(runner.model).dump, out_file_path=args.out))
            runner.test_evaluator.metrics.append(dump)
        runner.test()


if __name__ == '__main__':
    run_tool(main)
