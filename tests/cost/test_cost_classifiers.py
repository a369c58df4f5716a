"""The cost of a classifier's subnet is, to the last digit, what MMEngine's analysis says of the exported network."""
from __future__ import annotations

import copy
import warnings
from typing import Any

import pytest
from mmdet.registry import MODELS

from mmbignas.cost import CostModel
from mmbignas.supernet import Supernet
from tests.cost.test_cost_model import check, on_meta, subnets
from tests.small_classifiers import (
    big_mobilenet,
    classifier,
    cls_head,
    mobile_classifier,
    regnet_classifier,
    resnet_classifier,
    width_up_to,
)

pytest.importorskip('mmpretrain')

SPACES: dict[str, tuple[Any, int]] = {  # and how many random subnets at each size
    'RegNet with groups and squeeze-and-excitation': (regnet_classifier(), 12),
    'mobile network': (mobile_classifier(), 12),
    'mobile network, switchable norms, no last convolution': (classifier(
        big_mobilenet(final_expand_ratio=0, norm_cfg=dict(type='mmbignas.SwitchableBatchNorm2d'), se_ratio=(.5,) * 7,
                      conv_cfg=dict(type='mmbignas.DynamicConv2d', kernel_transform=True)),
        cls_head(width_up_to(40))), 8),
    'ResNet': (resnet_classifier(), 8),
}


@pytest.mark.parametrize('name', SPACES)
@pytest.mark.parametrize('size', [(64, 96), (97, 65)])
def test_small_classifiers(name: str, size: tuple[int, int]) -> None:
    config, count = SPACES[name]
    model = MODELS.build(copy.deepcopy(config))
    with warnings.catch_warnings():
        warnings.simplefilter('error')
        cost_model = CostModel(on_meta(config), [size])
    for subnet in subnets(cost_model, count, seed=size[0]):
        check(config, model, cost_model, subnet, size)


def test_several_sizes_are_a_dimension_of_the_space() -> None:
    config = mobile_classifier()
    model = MODELS.build(copy.deepcopy(config))
    sizes = [(49, 49), (64, 64), (81, 81)]
    cost_model = CostModel(model, sizes)
    assert cost_model.space.size == 3 * Supernet(model).space.size
    drawn = subnets(cost_model, 12)
    assert {subnet.image_size for subnet in drawn} == set(sizes)
    for subnet in drawn:
        check(config, model, cost_model, subnet, subnet.image_size)
