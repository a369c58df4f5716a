"""The sizes of images that a model can see."""
from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any

from torch import nn

from mmbignas.errors import ConfigError


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
    several = isinstance(image_size, Sequence) and not isinstance(image_size, str)
    sides = list(image_size) if several else [image_size]
    if not several or len(sides) != 2 or any(
            isinstance(side, bool) or not isinstance(side, Integral) or side < 1 or side % divisor for side in sides):
        raise ConfigError(f'{key}: {" ".join(map(str, sides))} is not allowed; allowed: height and width in pixels '
                          f'after padding, multiples of {divisor} (data_preprocessor.pad_size_divisor)')
    return int(sides[0]), int(sides[1])
