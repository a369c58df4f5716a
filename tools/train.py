"""Train from a config, in MMEngine's manner: python tools/train.py CONFIG [options]."""

import argparse

import torch
from mmengine.config import Config

from mmbignas.agreement import agreement_of
from mmbignas.cli import add_common_arguments, existing_checkpoint, load_config, run_tool
from mmbignas.data.check_data import check_files
from mmbignas.train import ResumeHook, StopHook
from mmbignas.utils.configs import type_name
from mmbignas.utils.distributed import build_runner
from mmbignas.utils.files import writing
from mmbignas.utils.rules import must_be


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    add_common_arguments(parser)
    parser.add_argument('--amp', action='store_true', help='train with mixed precision (on a CPU in bfloat16)')
    parser.add_argument(
        '--auto-scale-lr',
        action='store_true',
        help='scale the learning rate by the total batch size over auto_scale_lr.base_batch_size',
    )
    parser.add_argument(
        '--resume',
        nargs='?',
        const='auto',
        metavar='CHECKPOINT',
        help='go on from this checkpoint, or from the last one in the work dir',
    )
    return parser.parse_args()


def use_amp(cfg: Config) -> None:
    """Train with mixed precision: MMEngine's way on a GPU, in bfloat16 on a CPU, where that one does not run.

    Raises:
        ConfigError: The config has an optimizer wrapper of another kind.
    """
    own = type_name(cfg.optim_wrapper) or 'OptimWrapper'
    if own == 'BFloat16OptimWrapper':
        return
    if own not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise must_be('optim_wrapper.type', 'OptimWrapper, AmpOptimWrapper or BFloat16OptimWrapper with --amp, which '
                      'would replace it', own)
    if torch.cuda.is_available():
        cfg.optim_wrapper.type = 'AmpOptimWrapper'
        cfg.optim_wrapper.setdefault('loss_scale', 'dynamic')
    else:
        cfg.optim_wrapper.type = 'mmbignas.BFloat16OptimWrapper'
        for name in ('loss_scale', 'dtype', 'use_fsdp'):  # of a config with AmpOptimWrapper
            cfg.optim_wrapper.pop(name, None)


def apply_options(cfg: Config, args: argparse.Namespace) -> None:
    """Write the options of training into the config.

    Raises:
        ConfigError: An option does not fit the config or the machine.
    """
    if args.amp:
        use_amp(cfg)
    if args.auto_scale_lr:
        if 'base_batch_size' not in cfg.get('auto_scale_lr', {}):
            raise must_be('auto_scale_lr', 'dict(base_batch_size=...) for --auto-scale-lr', cfg.get('auto_scale_lr'))
        cfg.auto_scale_lr.enable = True
    if args.resume is not None:
        cfg.resume = True
        cfg.load_from = None if args.resume == 'auto' else existing_checkpoint(args.resume)


def main() -> None:
    """Train."""
    args = parse_args()
    cfg = load_config(args)
    apply_options(cfg, args)
    check_files(cfg, ('train', 'val'))
    with writing(cfg.work_dir):
        runner = build_runner(cfg)
        for hook in (ResumeHook, StopHook):
            if not any(isinstance(own, hook) for own in runner.hooks):
                runner.register_hook(hook())
        agreement_of(runner)
        runner.train()


if __name__ == '__main__':
    run_tool(main)
