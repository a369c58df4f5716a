"""Make a trained network a family: python tools/make_supernet.py CONFIG [CHECKPOINT] --out supernet.py.

Finds out which channels and blocks of a stock detector or classifier can be dropped, proves it, and writes beside each
other the config of the supernet, ready to be trained, the plan of what can be dropped, and a picture of the network.
"""

import argparse
import os
from pathlib import Path

from mmengine.config import Config

from mmbignas import ConfigError
from mmbignas.cli import add_config_arguments, existing_checkpoint, read_config, run_tool
from mmbignas.data.pipeline_size import pipeline_size
from mmbignas.elastic.elastic_picture import draw_layers
from mmbignas.elastic.family import RATIOS, Family
from mmbignas.elastic.genes import DIVISOR, SHARES
from mmbignas.elastic.network_profile import elastic_share
from mmbignas.elastic.recipe import EPOCHS, recipe
from mmbignas.elastic.summary import summary
from mmbignas.utils.commands import command
from mmbignas.utils.files import check_new_file, written_together
from mmbignas.utils.rules import integer


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_config_arguments(parser, "config file of the network's own training, or PACKAGE::NAME of one in a package")
    parser.add_argument('checkpoint', nargs='?', help='its checkpoint, which the supernet starts from')
    parser.add_argument('--out', required=True, metavar='FILE', help='the config to write, .py; FILE.plan.json and '
                        'FILE.png go beside it')
    parser.add_argument('--ratios', nargs='+', type=float, default=list(RATIOS), metavar='R',
                        help=f'shares of the full width (default: {" ".join(map(str, RATIOS))})')
    parser.add_argument('--divisor', type=int, default=DIVISOR, metavar='N',
                        help=f'widths are multiples of it (default: {DIVISOR})')
    parser.add_argument('--share', choices=SHARES, default='stage',
                        help='one width for all blocks of a stage (default), or one per group of channels')
    parser.add_argument('--no-depth', action='store_true', help='leave no blocks out')
    parser.add_argument('--epochs', type=int, default=EPOCHS,
                        help=f"length of the family's training (default: {EPOCHS})")
    parser.add_argument('--image-size', nargs=2, type=int, metavar=('H', 'W'),
                        help='of the images that MACs are counted for (default: that of the data pipeline)')
    parser.add_argument('--example', metavar='FUNCTION', help='package.module.function, which takes the model and '
                        'returns a batch to trace it with (default: one is made)')
    parser.add_argument('--overwrite', action='store_true', help='replace files that are there')
    return parser.parse_args()


def base_config(cfg: Config, name: str, out: Path) -> str:
    """Where the written config finds the network's own, for ``_base_``; '' where it cannot be a base.

    Args:
        cfg: the network's own config.
        name: as it was typed.
        out: the config to write.
    """
    if Config._is_lazy_import(cfg.filename):  # of pure Python, which is no base of a config of the other kind
        return ''
    return name if '::' in name else os.path.relpath(Path(name).resolve(), out.resolve().parent)


def main() -> None:
    """Make a supernet."""
    args = parse_args()
    out = check_new_file(args.out, '.py', args.overwrite)
    files = {kind: out.with_suffix(f'.{kind}') for kind in ('plan.json', 'png')}
    for path in files.values():
        check_new_file(path, path.suffix, args.overwrite)
    integer(1).check(args.epochs, '--epochs')
    name = args.config
    if '::' in name:
        try:
            args.config = Config._get_cfg_path(name, '')[0]
        except (FileNotFoundError, ModuleNotFoundError, ValueError) as error:
            raise ConfigError(f'config file not found: {name} ({error})') from None
    cfg = read_config(args)
    checkpoint = args.checkpoint and existing_checkpoint(args.checkpoint)
    size = args.image_size or pipeline_size(cfg)
    if size is None:
        raise ConfigError(f'--image-size H W is missing, and the data pipeline of {name} does not tell it')
    family = Family(cfg, checkpoint, size, args.ratios, args.divisor, args.share, not args.no_depth, args.example)
    base, stock = base_config(cfg, name, out), ''
    if not base or args.cfg_options:
        base = f'{out.stem}_stock.py'
        check_new_file(out.with_name(base), '.py', args.overwrite)
        stock = Config(cfg.to_dict()).pretty_text
    if checkpoint and '://' not in checkpoint:
        checkpoint = str(Path(checkpoint).resolve())
    text = recipe(family, cfg, base, files['plan.json'].name, checkpoint, size, args.epochs)
    names = [out.name, files['plan.json'].name, files['png'].name, *([base] if stock else [])]
    title = f'{family.of}: {elastic_share(family.layers):.0%} of the MACs in layers that can get narrower'
    with written_together(out.parent, names) as asides:
        asides[0].write_text(text, encoding='utf-8')
        family.plan.save(asides[1])
        draw_layers(family.layers, title, asides[2], 'png')
        if stock:
            asides[3].write_text(stock, encoding='utf-8')
    print(summary(family, size))
    print(f'in {out.parent}: {", ".join(names)}\nnext: {command("python", "tools/train.py", out)}')


if __name__ == '__main__':
    run_tool(main)
