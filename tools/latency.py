"""Measure the latency of subnets, or build the table it is predicted from: python tools/latency.py {measure,table} ...

Neither a checkpoint nor data are needed: latency does not depend on weights.
"""

import argparse
import random
import sys

import torch
from mmengine.config import Config
from mmengine.registry import MODELS
from mmengine.utils import ProgressBar
from terminaltables import AsciiTable

from mmbignas.cli import add_config_arguments, image_size_pairs, read_config, run_tool
from mmbignas.cost import CostModel
from mmbignas.latency import BACKENDS, build_backend, build_latency_table, measure_latency
from mmbignas.latency.table import SETTINGS
from mmbignas.supernet import parse_choices, subnet_config
from mmbignas.supernet.build import build_model
from mmbignas.utils.units import format_macs, format_params


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    commands = parser.add_subparsers(dest='command', required=True)
    measured = commands.add_parser('measure', help='measure subnets as ordinary networks')
    measured.add_argument('--subnet', nargs='+', default=['max', 'min'],
                          help='max, min, middle, random, numbers or files of subnets (default: max min)')
    measured.add_argument('--pause', type=float, default=0., metavar='SECONDS',
                          help='wait before each measurement, so that a GPU does not throttle (RF-DETR: 0.2)')
    table = commands.add_parser('table', help='measure blocks and some subnets, from which others are predicted')
    table.add_argument('--out', required=True, metavar='TABLE.json',
                       help='the table; a table that is there already is completed')
    for command in (measured, table):
        add_config_arguments(command, 'config file of a supernet')
        command.add_argument('--image-size', nargs='+', type=int, metavar='H W', required=True,
                             help='height and width of the images in pixels; several pairs are sizes to choose from')
        command.add_argument('--batch-size', type=int, default=1, help='images in a batch (default: 1)')
        command.add_argument('--backend', choices=BACKENDS, default='torch', help='what runs the networks')
        command.add_argument('--device', default='cpu', help='cpu (default), cuda or cuda:1')
        command.add_argument('--threads', type=int, help="of the CPU (default: torch's)")
    return parser.parse_args()


def build_models(cfg: Config, args: argparse.Namespace) -> tuple[torch.nn.Module, CostModel]:
    """Build the supernet, without weights, and its cost model.

    Raises:
        ConfigError: An image size is not a pair, or the model cannot be run on it.
    """
    sizes = image_size_pairs(args.image_size)
    with torch.device('meta'):
        model = build_model(cfg)
    return model, CostModel(model, sizes)


def measure_subnets(cfg: Config, args: argparse.Namespace) -> None:
    """Measure subnets and print a table of them."""
    conditions = build_backend(args.backend, args.device, args.threads).conditions
    model, cost_model = build_models(cfg, args)
    rows = [['subnet', 'image size', 'MACs', 'parameters', 'median ms', 'IQR ms']]
    for choice in parse_choices(args.subnet, cost_model.space, '--subnet', typed=True):
        subnet = choice.draw(cost_model.space, random.Random(0))
        height, width = subnet.image_size or cost_model.space.image_sizes[0]
        plain, cost = MODELS.build(subnet_config(cfg.model, model, subnet, (height, width))), cost_model(subnet)
        latency = measure_latency(plain, (height, width), args.batch_size, args.backend, args.device, args.threads,
                                  pause=args.pause)
        rows.append([choice.name, f'{height}x{width}', format_macs(cost.macs), format_params(cost.params),
                     f'{latency.median:.2f}', f'{latency.iqr:.2f}'])
    print(AsciiTable(rows).table)
    print_conditions(batch_size=args.batch_size, **({'pause': args.pause} if args.pause else {}), **conditions)


def build_table(cfg: Config, args: argparse.Namespace) -> None:
    """Build a latency table and print how well it predicts."""
    backend = build_backend(args.backend, args.device, args.threads)
    model, cost_model = build_models(cfg, args)
    bar: ProgressBar | None = None

    def report(lacking: int) -> None:
        nonlocal bar
        if bar is None:
            bar = ProgressBar(lacking, file=sys.stderr)
        else:
            bar.update(bar.task_num - bar.completed - lacking)

    table = build_latency_table(args.out, cfg.model, model, cost_model, backend, args.batch_size, report=report)
    fit = table.fit
    print(f'\n{args.out}: {len(table.times)} different blocks, {len(table.networks)} subnets')
    print(f'latency = {fit.intercept:.3f} ms + {fit.slope:.4f} * the sum of the blocks, fitted on {len(fit.fitted)} '
          f'subnets')
    print(f'median absolute error on {len(fit.held_out)} other subnets: {fit.error:.2f} %')
    print_conditions(**{name: value for name, value in table.identity.items() if name != SETTINGS})


def print_conditions(**conditions: object) -> None:
    """Print what was held fixed."""
    print(', '.join(f'{name.replace("_", " ")} {value}' for name, value in conditions.items()))


def main() -> None:
    """Measure."""
    args = parse_args()
    cfg = read_config(args)
    (measure_subnets if args.command == 'measure' else build_table)(cfg, args)


if __name__ == '__main__':
    run_tool(main)
