"""Sizes of images that a model can see."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mmengine.model import BaseDataPreprocessor, ImgDataPreprocessor
from torch import nn

from mmbignas import ConfigError
from mmbignas.data import check_image_size


def model(preprocessor: nn.Module | None) -> nn.Module:
    net = nn.Module()
    if preprocessor is not None:
        net.data_preprocessor = preprocessor
    return net


def test_multiples_of_the_size_divisor() -> None:
    net = model(ImgDataPreprocessor(pad_size_divisor=32))
    for size in ((64, 96), [32, 320], [np.int64(32), np.int64(64)]):
        checked = check_image_size(net, size, 'image_size')
        assert checked == tuple(size)
        assert all(type(side) is int for side in checked)
    for other in (None, BaseDataPreprocessor(), ImgDataPreprocessor()):
        assert check_image_size(model(other), (33, 1), 'image_size') == (33, 1)


@pytest.mark.parametrize('size', [(100, 64), [64, 100], (64, ), 64, None, [64, 64, 64], (0, 64), (32., 64), '64'])
def test_other_sizes(size: Any) -> None:
    with pytest.raises(ConfigError) as error:
        check_image_size(model(ImgDataPreprocessor(pad_size_divisor=32)), size, '--image-size')
    assert str(error.value) == ('--image-size must be height and width in pixels after padding, multiples of 32 '
                                f'(data_preprocessor.pad_size_divisor), got {size!r}')
