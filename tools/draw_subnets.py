"""Draw what subnets detect: python tools/draw_subnets.py CONFIG CHECKPOINT --images IMAGE ... --out PICTURE.png.

One row per image, one column per subnet, which is calibrated first; above it what the subnet costs. No annotations are
needed.
"""

import argparse
import random
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import mmcv
from mmdet.apis import inference_detector
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import MODELS
from torch import nn

from mmbignas import ConfigError
from mmbignas.analysis import draw_subnets
from mmbignas.cli import add_config_arguments, read_config, run_tool
from mmbignas.cost import Cost, CostModel
from mmbignas.data.calibration_images import CalibrationImages
from mmbignas.evaluation.drawn_predictions import is_detector
from mmbignas.latency import BACKENDS, build_backend, measure_latency
from mmbignas.space import Subnet
from mmbignas.supernet import (
    BNState,
    Checkpoint,
    calibrate_bn,
    parse_choices,
    read_checkpoint,
    subnet_config,
)
from mmbignas.supernet.build import load_supernet
from mmbignas.utils.files import check_new_file
from mmbignas.utils.rules import must_be, number
from mmbignas.utils.units import format_macs, format_params

TITLE_WIDTH = 40  # characters above a column


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_config_arguments(parser, 'config file of the supernet')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--images', nargs='+', required=True, metavar='IMAGE',
                        help='image files, one row each; MACs and latency are those at the size that the first one is '
                        'scaled and padded to, also where others get another size')
    parser.add_argument('--subnet', nargs='+', default=['max', 'middle', 'min'],
                        help='max, min, middle, random, numbers or files of subnets (default: max middle min)')
    parser.add_argument('--out', required=True, metavar='PICTURE.png', help='the picture to write')
    parser.add_argument('--overwrite', action='store_true', help='replace a picture that is there')
    parser.add_argument('--score-thr', type=float, default=0.3, help='leave out detections below (default: 0.3)')
    parser.add_argument('--calib-images', type=int, metavar='N',
                        help='calibrate the BN statistics with N images, 0 for not at all (default: as '
                        'BNCalibrationHook in the config says)')
    parser.add_argument('--latency-backend', choices=[*BACKENDS, 'none'], default='torch',
                        help='what runs the networks to measure their latency (default: torch)')
    parser.add_argument('--device', default=get_device(),
                        help='for detection and latency: cpu, cuda or cuda:1 (default here: %(default)s)')
    parser.add_argument('--threads', type=int, default=1, help='of the CPU, for the latency (default: 1)')
    return parser.parse_args()


def check_args(args: argparse.Namespace) -> None:
    """Check files and numbers before anything slow.

    Raises:
        ConfigError: An image or the folder of the picture is not there, or a number or the device is not allowed.
    """
    for image in args.images:
        if not Path(image).is_file():
            raise ConfigError(f'--images: {image} does not exist')
    check_new_file(args.out, '.png', args.overwrite)
    number(0, 1).check(args.score_thr, '--score-thr')
    # Without latency too, since PyTorch detects on the device.
    build_backend('torch' if args.latency_backend == 'none' else args.latency_backend, args.device, args.threads)


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
        checkpoint: The checkpoint of a run usually has them.
        cfg: The config.
        count: How many classes the model has.
    """
    dataset = (cfg.get('test_dataloader') or {}).get('dataset') or {}
    own = (dataset.get('metainfo') or {}).get('classes')
    for names in (checkpoint.classes, [own] if isinstance(own, str) else own):
        if names is not None and len(names) == count:
            return list(names)
    return [f'class {number}' for number in range(count)]


def detect(model: nn.Module, images: Sequence[str], batches: list[Any] | None) -> list[Any]:
    """Let the current subnet detect, and leave the statistics of the supernet as they were.

    Args:
        model: The supernet.
        images: Image files.
        batches: What its BN statistics are calibrated with first; ``None`` for not at all.

    Returns:
        list: One ``DetDataSample`` per image.
    """
    state = BNState(model)
    if batches is not None:
        calibrate_bn(model, batches)
    samples = inference_detector(model, images)
    state.restore()
    return samples


def latency_of(subnet: Subnet, model: nn.Module, size: tuple[int, int], args: argparse.Namespace) -> float:
    """Measure a subnet as an ordinary network.

    Args:
        subnet: The subnet.
        model: The supernet.
        size: Height and width in pixels.
        args: The parsed command line.

    Returns:
        float: Median in milliseconds.
    """
    plain = MODELS.build(subnet_config(model.cfg.model, model, subnet, size))
    return measure_latency(plain, size, 1, args.latency_backend, args.device, args.threads).median


def title_lines(name: str, cost: Cost, size: tuple[int, int]) -> list[str]:
    """What stands above a column, but for the latency.

    Args:
        name: Name of the subnet.
        cost: What it costs.
        size: Height and width in pixels, for which it costs that.
    """
    return [*textwrap.wrap(name, TITLE_WIDTH),
            f'{format_macs(cost.macs)} at {size[0]}x{size[1]}, {format_params(cost.params)} parameters']


def main() -> None:
    """Draw."""
    args = parse_args()
    check_args(args)
    cfg = read_config(args)
    images = read_images(args.images)
    calibration = CalibrationImages.from_config(cfg, args.calib_images, '--calib-images')
    checkpoint = read_checkpoint(args.checkpoint)
    supernet = load_supernet(cfg, checkpoint)
    model = supernet.model
    if not is_detector(model):
        raise must_be('model', 'a detector (others: python tools/test.py ... --show-dir)',
                      type(model).__name__)
    choices = parse_choices(args.subnet, supernet.space, '--subnet', typed=True)
    model.cfg = cfg  # where MMDetection looks for the pipeline
    model.to(args.device)
    size = inference_detector(model, args.images[0]).batch_input_shape  # of the padded image
    cost_model = CostModel(model, [size])
    batches = None if calibration is None else calibration.load()
    columns = {}
    for index, choice in enumerate(choices):
        subnet = supernet.apply(choice.draw(supernet.space, random.Random(index)))
        lines = title_lines(choice.name, cost_model(subnet), size)
        if args.latency_backend != 'none':
            latency = latency_of(subnet, model, size, args)
            lines.append(f'{latency:.2f} ms, {args.latency_backend} on {args.device}')
        columns['\n'.join(lines)] = detect(model, args.images, batches)
        print(', '.join(lines))
    classes = class_names(checkpoint, cfg, model.bbox_head.num_classes)
    draw_subnets(columns, images, classes, args.out, args.score_thr)
    print(f'in {args.out}: {len(images)} images, {len(columns)} subnets')


if __name__ == '__main__':
    run_tool(main)
