"""Draw subnets of a supernet, and write down and draw what they cost: python tools/sample_flops.py CONFIG [options].

Neither a checkpoint nor data are needed. Options that are not given are taken from test_cfg where that is a
SampleFlopsLoop.
"""

import argparse
from pathlib import Path
from typing import Any

import torch
from mmengine.config import Config

from mmbignas.cli import add_config_arguments, default_work_dir, image_sizes, read_config, run_tool
from mmbignas.cost.sampling import SAMPLE_MODES
from mmbignas.data.pipeline_size import image_sizes_of
from mmbignas.evaluation import SampleFlopsLoop
from mmbignas.evaluation.sample_flops import SampleFlops
from mmbignas.supernet.build import build_model
from mmbignas.utils.configs import type_name


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_config_arguments(parser, 'config file of a supernet')
    parser.add_argument('--image-size', nargs='+', type=int, metavar='H W',
                        help='height and width of the images in pixels; several pairs are sizes to choose from')
    parser.add_argument('--subnet-count', type=int, metavar='N', help='how many subnets to draw (default: 10000)')
    parser.add_argument('--subnet-sample-mode', choices=SAMPLE_MODES,
                        help="by the space's strategies (default), each subnet with the same probability, or evenly "
                        'spaced')
    parser.add_argument('--flops-range', nargs=2, metavar=('LOW', 'HIGH'),
                        help='fewest and most MACs, e.g. 10G 20G; none for no limit')
    parser.add_argument('--baseline-flops', metavar='MACS', help='MACs of a network to compare with, e.g. 20G')
    parser.add_argument('--large-flops', metavar='MACS', help='MACs of a second network to compare with')
    parser.add_argument('--lut-path', metavar='FILE', help='latency table, from which latencies are predicted')
    parser.add_argument('--seed', type=int, help='of the draws (default: 0)')
    parser.add_argument('--out', help='folder for the results (default: sample_flops in the work dir of the config)')
    return parser.parse_args()


def read_arguments(cfg: Config, args: argparse.Namespace) -> dict[str, Any]:
    """The arguments of SampleFlops: those of the config, and over them the options that were given.

    Raises:
        ConfigError: There is no image size, or one that is not a pair.
    """
    own = cfg.get('test_cfg') or {}
    arguments = {name: value for name, value in own.items() if name != 'type'} if type_name(
        own) == SampleFlopsLoop.__name__ else {}
    names = ('subnet_count', 'subnet_sample_mode', 'baseline_flops', 'large_flops', 'lut_path', 'seed')
    arguments.update({name: getattr(args, name) for name in names if getattr(args, name) is not None})
    if args.flops_range is not None:
        arguments['flops_range'] = [None if end.lower() == 'none' else end for end in args.flops_range]
    return dict(arguments, image_size=image_sizes(args, image_sizes_of(cfg)))


def main() -> None:
    """Draw."""
    args = parse_args()
    cfg = read_config(args)
    sample_flops = SampleFlops.from_config(read_arguments(cfg, args))
    with torch.device('meta'):
        model = build_model(cfg)
    sample_flops.run(model, args.out or Path(default_work_dir(cfg), 'sample_flops'), model_cfg=cfg.model)


if __name__ == '__main__':
    run_tool(main)
