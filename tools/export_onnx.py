"""Write a trained network as an ONNX or .pt2 file: python tools/export_onnx.py CONFIG CHECKPOINT --out FILE ...

The config is an ordinary one, such as tools/export_subnet.py writes. The file takes images that are normalised already
(what that takes is written in it) and gives the raw outputs of the network, such as a classifier's logits, or boxes.
The suffix decides: .onnx needs ONNX Runtime or anything else that runs ONNX models, .pt2 needs torch, and neither needs
this package.
"""

import argparse
from collections.abc import Sequence

from mmengine.config import Config

from mmbignas import ConfigError
from mmbignas.cli import add_config_arguments, read_config, run_tool
from mmbignas.data import check_image_size
from mmbignas.data.pipeline_size import image_steps, own_preprocessor, pipeline_size
from mmbignas.export import ExportCheck, check_opset, check_plain, export_onnx, export_pt2
from mmbignas.supernet import load_weights, read_checkpoint
from mmbignas.supernet.build import build_model
from mmbignas.utils.files import check_new_file
from mmbignas.utils.rules import must_be
from mmbignas.utils.units import format_params


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_config_arguments(parser, 'config file of an ordinary model, without spaces')
    parser.add_argument('checkpoint', help='its checkpoint')
    parser.add_argument('--out', required=True, metavar='FILE',
                        help='the file to write: .onnx, or .pt2 for torch.export.load')
    parser.add_argument('--image-size', nargs=2, type=int, metavar=('H', 'W'),
                        help='height and width of the images in pixels, after padding on the right and at the bottom '
                        'to multiples of the size divisor; images are float32 (N, C, H, W), already normalised '
                        '(default: those of the data preprocessor, or of the pipeline of the validation)')
    parser.add_argument('--boxes', action='store_true',
                        help='.onnx only: in place of raw outputs boxes, in pixels of the input, scores and labels, as '
                        'MMDetection predicts them for images in the same padding; filled up to test_cfg.max_per_img '
                        'with label -1. A second input, image_sizes, int64 (N, 2), is height and width of each image '
                        'without its padding, where its boxes end')
    parser.add_argument('--static-batch', action='store_true', help='one image at a time (default: any number)')
    parser.add_argument('--opset', type=int, metavar='N',
                        help=".onnx only: version of ONNX's operators, from 18 (default: torch's)")
    parser.add_argument('--overwrite', action='store_true', help='replace a file that is there')
    return parser.parse_args()


def check_options(args: argparse.Namespace) -> str:
    """Refuse what cannot be written, before anything is built.

    Returns:
        str: The suffix of the file.

    Raises:
        ConfigError: Another suffix, a file that is there, ``--boxes`` with .pt2, or an opset that torch does not write.
    """
    suffix = check_new_file(args.out, ('.onnx', '.pt2'), args.overwrite).suffix
    if suffix == '.pt2' and args.boxes:
        raise must_be('--out', 'a file that ends in .onnx with --boxes, since torch has no NMS', args.out)
    if suffix == '.onnx':
        check_opset(args.opset, '--opset')
    return suffix


def input_size(cfg: Config, typed: Sequence[int] | None) -> Sequence[int]:
    """The image size of the file.

    Args:
        cfg: The config.
        typed: That of the command line, height and width.

    Returns:
        The same, or what the config gives.

    Raises:
        ConfigError: Images of that size never come out of the config's data preprocessor, or none is given.
    """
    own = own_preprocessor(cfg)
    size = None if own is None else own['image_size']
    if typed is None:
        size = size or pipeline_size(cfg)
        if size is None:
            raise ConfigError(f'--image-size H W is missing, and {cfg.filename} does not tell the size of its images')
        return size
    if size is not None and sorted(size) != sorted(typed):
        raise must_be('--image-size', f'{" ".join(map(str, size))}, to which the data_preprocessor of {cfg.filename} '
                      'brings images, or left out', list(typed))
    return typed


def report(check: ExportCheck) -> None:
    """Print what was written, and how exact it is."""
    images = ' and '.join(map(str, check.batches))
    print(f'{check.path}: {check.size / 1e6:.2f} MB, {format_params(check.params)} parameters')
    print(f'outputs: {", ".join(check.outputs)}')
    print(f'raw outputs, on batches of {images} random images: differ from those of the model by up to '
          f'{check.max_abs_diff:.3g}, and are at most {check.max_abs_output:.3g}')
    if check.boxes is not None:
        boxes = check.boxes
        print(f'boxes, on the same images without and with padding: {sum(boxes.found)}, and {sum(boxes.expected)} by '
              f'MMDetection; they differ by up to {boxes.max_box_diff:.3g} pixels, their scores by up to '
              f'{boxes.max_score_diff:.3g}')
        if not any(boxes.expected):
            print('no boxes were compared: none of the random images has one above test_cfg.score_thr')


def main() -> None:
    """Export."""
    args = parse_args()
    suffix = check_options(args)
    cfg = read_config(args)
    model = build_model(cfg)
    check_plain(model)
    image_size = input_size(cfg, args.image_size)
    check_image_size(model, image_size, '--image-size')
    checkpoint = read_checkpoint(args.checkpoint)
    load_weights(model, checkpoint)
    common = dict(dynamic_batch=not args.static_batch, classes=checkpoint.classes, resize=image_steps(cfg),
                  overwrite=args.overwrite)
    if suffix == '.onnx':
        report(export_onnx(model, args.out, image_size, args.boxes, opset=args.opset, **common))
    else:
        report(export_pt2(model, args.out, image_size, **common))


if __name__ == '__main__':
    run_tool(main)
