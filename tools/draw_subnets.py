"""Draw what subnets detect: python tools/draw_subnets.py CONFIG CHECKPOINT --images IMAGE ... --out PICTURE.png.

One row an image, one column a subnet, which is calibrated first; above it what the subnet costs. No annotations needed.
"""

import argparse
import random
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmdet.apis import inference_detector
from mmengine.config import Config, DictAction
from mmengine.device import get_device
from mmengine.registry import MODELS

from mmbignas import ConfigError
from mmbignas.analysis import draw_subnets
from mmbignas.cost import CostModel
from mmbignas.cost.latency import BACKENDS, build_backend, measure_latency
from mmbignas.cost.units import format_macs, format_params
from mmbignas.deploy import check_new_file
from mmbignas.engine.calibration_images import Calibration
from mmbignas.engine.launch import load_config, run_tool, use_scope
from mmbignas.supernet import (
    BNState,
    Checkpoint,
    Supernet,
    calibrate_bn,
    load_weights,
    parse_choices,
    read_checkpoint,
    subnet_config,
)

TITLE_WIDTH = 34  # characters above a column


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('config', help='config file of the supernet')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--images', nargs='+', required=True, metavar='IMAGE', help='image files, one row each')
    parser.add_argument('--subnet', nargs='+', default=['max', 'middle', 'min'],
                        help='max, min, middle, random, numbers or files of subnets (default: max middle min)')
    parser.add_argument('--out', required=True, metavar='PICTURE.png', help='the picture to write')
    parser.add_argument('--overwrite', action='store_true', help='replace a picture that is there')
    parser.add_argument('--score-thr', type=float, default=0.3, help='leave out detections below (default: 0.3)')
    parser.add_argument('--calib-images', type=int, metavar='N',
                        help='calibrate the BN statistics with so many images, 0 for not at all (default: as '
                        'BNCalibrationHook in the config says)')
    parser.add_argument('--latency-backend', choices=[*BACKENDS, 'none'], default='torch',
                        help='what runs the networks to measure their latency (default: torch)')
    parser.add_argument('--device', default='cpu', help='of the latency: cpu (default), cuda or cuda:1')
    parser.add_argument('--threads', type=int, default=1, help='of the CPU, for the latency (default: 1)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, default={}, metavar='KEY=VALUE',
                        help='replace settings of the config')
    # What load_config knows beside these.
    parser.set_defaults(work_dir=None, launcher='none', local_rank=0)
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    """Check files and numbers before anything slow.

    Args:
        args: The parsed command line.

    Raises:
        ConfigError: An image or the folder of the picture is not there, or a number is out of range.
    """
    for image in args.images:
        if not Path(image).is_file():
            raise ConfigError(f'--images: {image} does not exist; give image files')
    check_new_file(args.out, '.png', args.overwrite)
    if not 0 <= args.score_thr <= 1:
        raise ConfigError(f'--score-thr {args.score_thr}: allowed: numbers in 0..1')
    if args.latency_backend != 'none':
        build_backend(args.latency_backend, args.device, args.threads)


def read_images(paths: Sequence[str]) -> list[Any]:
    """Read images as RGB.

    Args:
        paths: The files.

    Raises:
        ConfigError: A file is no image.
    """
    images = []
    for path in paths:
        image = mmcv.imread(path)
        if image is None:
            raise ConfigError(f'--images: {path} cannot be read as an image')
        images.append(mmcv.bgr2rgb(image))
    return images


def class_names(checkpoint: Checkpoint, cfg: Config, count: int) -> list[str]:
    """Names of the classes: of the checkpoint, else of the config's data set, else numbers.

    Args:
        checkpoint: Of a run, which usually has them.
        cfg: The config.
        count: How many classes the model has.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    own = (dataset.get('metainfo') or {}).get('classes')
    for names in (checkpoint.classes, [own] if isinstance(own, str) else own):
        if names is not None and len(names) == count:
            return list(names)
    return [f'class {number}' for number in range(count)]


def detect(args: argparse.Namespace, cfg: Config) -> tuple[dict[str, list[Any]], list[str]]:
    """Let each subnet detect.

    Args:
        args: The parsed command line.
        cfg: The config.

    Returns:
        tuple: Title of each subnet -> its predictions, and the names of the classes.
    """
    calibration = Calibration.from_config(cfg, args.calib_images, '--calib-images')
    checkpoint = read_checkpoint(args.checkpoint)
    use_scope(cfg)
    model = MODELS.build(cfg.model)
    load_weights(model, checkpoint)
    supernet = Supernet(model)
    names = [int(name) if name.isdecimal() else name for name in args.subnet]
    choices = parse_choices(names, supernet.space, '--subnet')
    model.cfg = cfg  # where MMDetection looks for the pipeline
    model.to(get_device()).eval()
    size = inference_detector(model, args.images[0]).batch_input_shape  # of the padded image
    print(f'MACs and latency at {size[0]}x{size[1]} pixels')
    cost_model = CostModel(model, [size])
    batches = None if calibration is None else calibration.load()
    columns = {}
    for index, choice in enumerate(choices):
        subnet = supernet.apply(choice.draw(supernet.space, random.Random(index)))
        cost = cost_model(subnet)
        lines = [*textwrap.wrap(choice.name, TITLE_WIDTH),
                 f'{format_macs(cost.macs)}, {format_params(cost.params)} parameters']
        if args.latency_backend != 'none':
            plain = MODELS.build(subnet_config(cfg.model, model, subnet))
            latency = measure_latency(plain, size, 1, args.latency_backend, args.device, args.threads)
            lines.append(f'{latency.median:.2f} ms, {args.latency_backend} on {args.device}')
        state = BNState(model)
        if batches is not None:
            calibrate_bn(model, batches)
        columns['\n'.join(lines)] = inference_detector(model, args.images)
        state.restore()
        print(', '.join(lines))
    return columns, class_names(checkpoint, cfg, model.bbox_head.num_classes)


def main() -> None:
    """Draw."""
    args = parse_args()
    check_args(args)
    cfg = load_config(args)
    images = read_images(args.images)
    columns, classes = detect(args, cfg)
    draw_subnets(columns, images, classes, args.out, args.score_thr)
    print(f'in {args.out}: {len(images)} images, {len(columns)} subnets')


if __name__ == '__main__':
    run_tool(main)
