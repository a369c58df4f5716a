"""Subnets of which a part is of a size that the stock class has in its own arguments."""
from __future__ import annotations

import copy

import pytest
import torch
from mmengine.registry import MODELS

from mmbignas.elastic.stock_sizes import stock_sizes
from mmbignas.supernet import Supernet, subnet_config
from tests.elastic.networks import build, classifier, elastic, retinanet


def resnet34():
    config = retinanet()
    config['backbone'] = dict(config['backbone'], depth=34)
    return config


def csp():
    return classifier(dict(type='mmdet.CSPNeXt', deepen_factor=0.67, widen_factor=0.25, norm_cfg=dict(type='BN')), 256)


def cut(config, model, **settings):
    """The largest subnet with some other settings, as a network of its own."""
    supernet = Supernet(model)
    subnet = {path: dict(own) for path, own in supernet.space.max().items()}
    for name, values in settings.items():
        subnet[f'elastic.{name}']['depth' if name == 'depth' else 'out_channel'] = values
    return MODELS.build(subnet_config(config, model, supernet.space.canonical(subnet)))


def test_a_resnet_34_without_some_blocks_is_a_resnet_18():
    config = elastic(resnet34(), example=64, width=None)
    model = build(config)
    found = stock_sizes(model, config, cut(config, model, depth=[2, 2, 2, 2]))
    assert found == {'backbone': dict(depth=18)}
    stock = MODELS.build(retinanet())
    plain = cut(config, model, depth=[2, 2, 2, 2])
    plain.load_state_dict(stock.state_dict())  # the same names and shapes
    image = torch.randn(1, 3, 64, 64)
    assert all(torch.equal(*pair) for pair in zip(stock.eval().backbone(image), plain.eval().backbone(image)))
    assert stock_sizes(model, config, cut(config, model, depth=[2, 2, 2, 1])) == {}


@pytest.mark.parametrize('share', ['stage', 'group'])
def test_half_of_all_widths(share):
    config = elastic(retinanet(), example=64, share=share, width=dict(ratios=[0.5, 0.75, 1.0], divisor=2), depth=None)
    model = build(config)
    half = [min(gene.channels) for gene in model.elastic.width.genes]
    assert stock_sizes(model, config, cut(config, model, width=half)) == {'backbone': dict(base_channels=4)}
    mixed = [gene.channels[number % 2] for number, gene in enumerate(model.elastic.width.genes)]
    assert stock_sizes(model, config, cut(config, model, width=mixed)) == {}


def test_factors():
    config = elastic(csp(), example=64)
    model = MODELS.build(config)
    smaller = copy.deepcopy(csp())
    smaller['backbone'].update(widen_factor=0.125, deepen_factor=0.3)
    found = stock_sizes(model, config, MODELS.build(smaller))
    assert found.keys() == {'backbone'}
    again = copy.deepcopy(csp())
    again['backbone'].update(found['backbone'])
    shapes = [{name: value.shape for name, value in MODELS.build(own).backbone.state_dict().items()}
              for own in (smaller, again)]
    assert found['backbone']['widen_factor'] == 0.125 and shapes[0] == shapes[1]


def test_of_the_largest_subnet_nothing_is_said():
    config = elastic(retinanet(), example=64)
    model = build(config)
    assert stock_sizes(model, config, cut(config, model)) == {}
