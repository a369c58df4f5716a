"""Cut a subnet out of a trained supernet: python tools/export_subnet.py CONFIG CHECKPOINT --subnet SUBNET --out DIR.

The folder holds config.py and checkpoint.pth, which the tools of MMDetection or MMPretrain take, and certificate.json.
That of an elastic supernet also has subnet_builder.py, and is used without mmbignas.
"""

import argparse
import random
from pathlib import Path

from mmbignas.cli import add_config_arguments, image_sizes, read_config, run_tool
from mmbignas.data.calibration_images import CalibrationImages
from mmbignas.data.pipeline_size import image_sizes_of
from mmbignas.export.subnet_folder import BUILDER, CERTIFICATE, CHECKPOINT, CONFIG, SubnetExporter, check_export_folder
from mmbignas.supernet import parse_choice
from mmbignas.utils.units import format_macs, format_params

FILES = (CONFIG, CHECKPOINT, CERTIFICATE, BUILDER)


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_config_arguments(parser, 'config file of the supernet')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--subnet', required=True,
                        help='max, min, middle, random, the number of a subnet, or a .json or .yaml file with settings')
    parser.add_argument('--out', required=True, metavar='DIR', help='the folder to write; it must not exist')
    parser.add_argument('--image-size', nargs='+', type=int, metavar='H W',
                        help='height and width in pixels that MACs are counted for; several pairs are sizes to choose '
                        'from, and the subnet then sees images of its own (default: test_cfg.image_size)')
    parser.add_argument('--calib-images', type=int, metavar='N',
                        help='calibrate the BN statistics with N images, 0 for not at all (default: as '
                        'BNCalibrationHook in the config says)')
    parser.add_argument('--weights', choices=['ema', 'training'],
                        help='of a run with EMAHook: the averaged weights, or those that were trained (default: what '
                        "MMEngine's tools load)")
    return parser.parse_args()


def main() -> None:
    """Export."""
    args = parse_args()
    check_export_folder(args.out)
    cfg = read_config(args)
    sizes = image_sizes(args, image_sizes_of(cfg))
    image_size = sizes[0] if args.image_size and len(sizes) == 1 else sizes  # a list of one would resize to it
    calibration = CalibrationImages.from_config(cfg, args.calib_images, '--calib-images')
    exporter = SubnetExporter(cfg, args.checkpoint, image_size, calibration, args.weights)
    choice = parse_choice(args.subnet, exporter.space, '--subnet')
    certificate = exporter.export(choice.draw(exporter.space, random.Random(0)), args.out)
    height, width = certificate['image_size']
    equal = 'equal, bit for bit' if certificate['bit_for_bit'] else f'differ by up to {certificate["max_abs_diff"]:.3g}'
    print(f'{choice.name}: {format_macs(certificate["macs"])} at {height}x{width}, '
          f'{format_params(certificate["params"])} parameters, {certificate["checkpoint"]["bytes"] / 1e6:.2f} MB')
    if certificate['bn_calibration'] is None:
        print('BN statistics: those of the supernet, a mixture of all subnets; --calib-images N calibrates them')
    else:
        print(f'BN statistics: calibrated with {certificate["bn_calibration"]["num_images"]} images')
    print(f'outputs on {len(certificate["inputs"])} random batches, supernet and exported network: {equal}')
    files = [name for name in FILES if Path(args.out, name).exists()]
    print(f'in {args.out}: {", ".join(files)}')
    for part, arguments in certificate.get('stock_sizes', {}).items():
        shown = ', '.join(f'{name}={value!r}' for name, value in arguments.items())
        print(f'its {part} has the sizes of the stock class with {shown}')
    if not certificate['needs_mmbignas']:
        print('the folder needs no mmbignas')


if __name__ == '__main__':
    run_tool(main)
