"""The sizes of images that a model can see."""
from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from torch import nn

from mmbignas.space import ImageSize
from mmbignas.utils.rules import integer, list_of, must_be


def check_image_size(model: nn.Module, image_size: Any, key: str) -> tuple[int, int]:
    """Make sure that images of this size reach the model, whose preprocessor pads them to multiples of a number.

    Args:
        model: the model, with or without a data preprocessor.
        image_size: height and width in pixels, after padding.
        key: what the user calls it, such as ``test_cfg.image_size`` or ``--image-size``.

    Returns:
        tuple: height and width, as plain integers.

    Raises:
        ConfigError: when it is no such size.
    """
    divisor = getattr(getattr(model, 'data_preprocessor', None), 'pad_size_divisor', 1)
    if not list_of(integer(1), '', 2, 2).holds(image_size) or any(side % divisor for side in image_size):
        raise must_be(key, f'height and width in pixels after padding, multiples of {divisor} '
                      '(data_preprocessor.pad_size_divisor)', image_size)
    return int(image_size[0]), int(image_size[1])


def read_image_sizes(model: nn.Module, image_sizes: Any, key: str) -> list[ImageSize]:
    """Read image sizes, and make sure that the model can do something with each.

    Args:
        model: the model, not a wrapper, with or without a data preprocessor.
        image_sizes: ``[height, width]`` in pixels, after padding, or a list of such sizes.
        key: its place in the config, for messages.

    Returns:
        list: height and width of each, as plain integers, in the same order.

    Raises:
        ConfigError: for anything else, or a side that is below the stride of the model's backbone.
    """
    several = isinstance(image_sizes, Sequence) and not isinstance(image_sizes, str) and not is_one_size(image_sizes)
    read = [check_image_size(model, size, key) for size in (image_sizes if several else [image_sizes])]
    stride = network_stride(model)
    for size in read:
        if min(size) < stride:
            raise must_be(key, f'height and width >= {stride}, the stride of the backbone', list(size))
    return read


def read_size_list(model: nn.Module, image_sizes: Any, key: str) -> list[ImageSize]:
    """Read a list of image sizes that images are resized to; arguments as for :func:`read_image_sizes`.

    Raises:
        ConfigError: as there, and for one size that is no list.
    """
    if isinstance(image_sizes, str) or not isinstance(image_sizes, Sequence) or is_one_size(image_sizes):
        raise must_be(key, 'a list of [height, width] in pixels, such as [[192, 192], [224, 224]], or None',
                      image_sizes)
    return read_image_sizes(model, image_sizes, key)


def is_one_size(image_sizes: Any) -> bool:
    """Whether this is ``[height, width]``, and no list of sizes."""
    return isinstance(image_sizes, Sequence) and all(isinstance(side, Integral) for side in image_sizes)


def network_stride(model: nn.Module) -> int:
    """How many pixels of the image lie between two neighbours of the coarsest feature of a model's backbone.

    Args:
        model: a model. A backbone says it as ``total_stride``; 1 for one that does not.
    """
    return int(getattr(getattr(model, 'backbone', None), 'total_stride', 1))
