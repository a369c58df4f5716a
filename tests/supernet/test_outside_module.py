"""A user's own backbone, written outside the package with nothing but the documented contract and the layers.

A RegNet of two stages: bottlenecks with grouped convolutions and squeeze-and-excitation, searched in depth, width,
group width and the width of the first layer.
"""
from __future__ import annotations

import random
from typing import Any

import pytest
import torch
from mmcv.cnn import ConvModule
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor, nn

from mmbignas import ConfigError
from mmbignas.ops import DynamicConv2d, DynamicLinear
from mmbignas.space import ModuleSpace
from mmbignas.supernet import Searchable, Supernet, live_modules, subnet_config, subnet_state_dict
from tests.models.same_network import check_same_network
from tests.small_models import big_fpn, big_retina_head, build, element, retinanet, scramble


class Bottleneck(nn.Module):
    """1x1, grouped 3x3, squeeze-and-excitation, 1x1."""

    def __init__(self, inputs: int, width: int, group_width: int, searched: bool, first: bool) -> None:
        super().__init__()
        layers: dict[str, Any] = dict(norm_cfg=dict(type='BN'))
        if searched:
            layers = dict(conv_cfg=dict(type='mmbignas.DynamicConv2d'),
                          norm_cfg=dict(type='mmbignas.DynamicBatchNorm2d'))
        linear = DynamicLinear if searched else nn.Linear
        self.enter = ConvModule(inputs, width, 1, **layers)
        self.grouped = ConvModule(width, width, 3, stride=2 if first else 1, padding=1, groups=width // group_width,
                                  **layers)
        self.squeeze, self.excite = linear(width, width // 4), linear(width // 4, width)
        self.leave = ConvModule(width, width, 1, act_cfg=None, **layers)
        self.shortcut = ConvModule(inputs, width, 1, stride=2, act_cfg=None, **layers) if first else nn.Identity()

    def set_active(self, width: int, group_width: int) -> None:
        for layer in (self.enter, self.grouped, self.leave, self.shortcut):
            if isinstance(layer, ConvModule) and isinstance(layer.conv, DynamicConv2d):
                layer.conv.active_out_channels = width
        self.grouped.conv.active_groups = width // group_width
        self.squeeze.active_out_features, self.excite.active_out_features = width // 4, width

    def forward(self, x: Tensor) -> Tensor:
        y = self.grouped(self.enter(x))
        scale = self.excite(self.squeeze(y.mean((2, 3))).relu()).sigmoid()
        return (self.leave(y * scale[:, :, None, None]) + self.shortcut(x)).relu()


@MODELS.register_module()
class OutsideRegNet(BaseModule):

    def __init__(self, depth: Any, width: Any, group_width: Any) -> None:
        super().__init__(dict(type='Kaiming', layer='Conv2d'))
        self.search_space = space = ModuleSpace(
            dict(depth=depth, width=width, group_width=group_width), 2, block_elements=(), key='OutsideRegNet')
        self.stem = nn.Conv2d(3, 8, 3, stride=4, padding=1)
        self.stages, inputs = nn.ModuleList(), 8
        for stage in range(2):
            widths, groups = space.choices('width', stage), space.choices('group_width', stage)
            blocks = nn.ModuleList()
            for block in range(space.choices('depth', stage)[-1]):
                blocks.append(Bottleneck(inputs, widths[-1], groups[-1], space.is_supernet, block == 0))
                inputs = widths[-1]
            self.stages.append(blocks)

    def apply_subnet(self, settings: Any) -> None:
        for blocks, values in zip(self.stages, self.search_space.blocks(settings)):
            for index, block in enumerate(blocks):
                block.is_active = index < len(values)
                if block.is_active:
                    block.set_active(**values[index])

    def forward(self, x: Tensor) -> list[Tensor]:
        x, outputs = self.stem(x), []
        for blocks in self.stages:
            for block in blocks:
                if getattr(block, 'is_active', True):
                    x = block(x)
            outputs.append(x)
        return outputs


def detector() -> Any:
    backbone = dict(
        type='OutsideRegNet', depth=element([1, 1], [2, 3], 1), width=element([16, 16], [32, 48], [8, 16]),
        group_width=[8, 16])
    head = big_retina_head(
        anchor_generator=dict(type='AnchorGenerator', ratios=[1.0], scales=[6, 8], strides=[8, 16, 32]))
    return retinanet(backbone, big_fpn(in_channels=[32, 48], num_outs=3), head)


def test_is_found_sampled_applied_exported_and_equal() -> None:
    config = detector()
    model = scramble(build(config))
    supernet, rng = Supernet(model), random.Random(0)
    assert isinstance(model.backbone, Searchable)
    assert list(supernet.space.modules) == ['backbone', 'neck', 'bbox_head.cls_tower']
    seen = set()
    for subnet in (supernet.space.max(), supernet.space.min(), *(supernet.space.sample(rng) for _ in range(20))):
        supernet.apply(subnet)
        seen.add(subnet)
        plain_config = subnet_config(config, model, subnet)
        assert plain_config['backbone'] == dict(type='OutsideRegNet', **subnet.to_dict()['backbone'])
        assert plain_config['neck']['in_channels'] == list(subnet['backbone']['width'])
        plain = MODELS.build(plain_config)
        plain.load_state_dict(subnet_state_dict(model, plain), strict=True)
        check_same_network(model, plain, torch.randn(2, 3, 64, 64), lambda net, x: net(x, mode='tensor'))
    assert len(seen) > 15


def test_blocks_left_out_are_not_live() -> None:
    model = build(detector())
    supernet = Supernet(model)
    supernet.apply(supernet.space.min())
    names = [name for name, _ in live_modules(model.backbone)]
    assert 'stages.0.0.enter.conv' in names
    assert not any(name.startswith(('stages.0.1', 'stages.1.1', 'stages.1.2')) for name in names)


def test_its_settings_are_refused_like_those_of_the_packages_modules() -> None:
    supernet = Supernet(build(detector()))
    settings = supernet.space.max().to_dict()
    settings['backbone']['width'] = [32, 40]
    with pytest.raises(ConfigError, match=r'backbone.width must be one of \[16, 32, 48\] in stage 1, got 40'):
        supernet.apply(settings)
    with pytest.raises(ConfigError, match='OutsideRegNet.width.*block_wise'):
        MODELS.build(dict(type='OutsideRegNet', depth=[1, 1], group_width=[8, 8],
                          width=element([8, 8], [16, 16], 8, 'block_wise')))
