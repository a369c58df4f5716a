"""Costs of elastic networks, against MMEngine's analysis of the networks cut to the subnets' shapes."""
from __future__ import annotations

import copy
import logging
import random

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.registry import MODELS
from torch import nn

from mmbignas import ConfigError
from mmbignas.cost import CostModel
from mmbignas.supernet import Supernet, subnet_config
from tests.elastic.networks import Toy, build, densenet, elastic, images, mobilenet, retinanet

CONFIGS = dict(retinanet=retinanet, densenet=densenet, mobilenet=mobilenet)
SIZES = [[64, 64], [96, 128]]


class Analysed(nn.Module):
    """A network in mode `tensor`."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image):
        return self.model(image, mode='tensor')


def analysis(network: nn.Module, size) -> tuple[int, int, int]:
    """MACs, operations and parameters by MMEngine."""
    analyzer = FlopAnalyzer(Analysed(network).eval(), torch.randn(1, 3, *size))
    analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
    by_operator = analyzer.by_operator()
    params = sum(parameter.numel() for parameter in network.parameters())
    return by_operator['conv'] + by_operator['linear'], analyzer.total(), params


@pytest.mark.parametrize('name', CONFIGS)
def test_costs_are_those_of_the_cut_network_to_the_last_digit(name):
    logging.disable(logging.WARNING)
    config = elastic(CONFIGS[name](), example=64)
    model = build(config)
    before = Supernet(model).current
    cost, rng = CostModel(model, SIZES), random.Random(0)
    seen = set()
    for subnet in [cost.space.min(), cost.space.max(), *(cost.space.sample(rng) for _ in range(8))]:
        own = {path: subnet[path] for path in subnet}
        plain = MODELS.build(subnet_config(config, model, Supernet(model).space.canonical(own)))
        found = cost(subnet)
        assert (found.macs, found.ops, found.params) == analysis(plain, subnet.image_size)
        assert tuple(map(sum, zip(*found.modules.values()))) == (found.macs, found.ops, found.params)
        for child, amounts in found.modules.items():
            assert amounts.params == sum(own.numel() for own in plain.get_submodule(child).parameters())
        seen.add(found.macs)
    assert len(seen) > 6
    assert Supernet(model).current == before
    logging.disable(logging.NOTSET)


def test_whole_runs_agree_and_nothing_is_run_again():
    model = build(elastic(mobilenet(), example=64))
    cost = CostModel(model, [[64, 64]])
    assert cost._divided  # the formula was compared with runs of the whole
    cost._shadow.run = None
    rng = random.Random(1)
    assert len({cost(cost.space.sample(rng)).ops for _ in range(50)}) > 40


def test_a_formula_that_is_wrong_is_found_and_the_network_run_as_a_whole(monkeypatch):
    from mmbignas.elastic.cost_formula import CostFormula

    right = CostFormula.__call__

    def wrong(self, subnet):
        return {child: [macs + 1, ops, params] for child, (macs, ops, params) in right(self, subnet).items()}

    model = build(elastic(mobilenet(), example=64))
    expected = CostModel(model, [[64, 64]])
    monkeypatch.setattr(CostFormula, '__call__', wrong)
    with pytest.warns(UserWarning, match='cannot be divided'):
        cost = CostModel(model, [[64, 64]])
    subnet = cost.space.sample(random.Random(2))
    monkeypatch.undo()
    assert cost(subnet) == expected(subnet)


def test_operations_that_hide_what_they_do_are_refused():
    from mmbignas.elastic import make_plan
    from mmbignas.elastic.builder import make_supernet

    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.a, self.mha, self.out = nn.Conv2d(3, 8, 1), nn.MultiheadAttention(8, 2), nn.Linear(8, 2)

        def forward(self, x):
            x = self.a(x).flatten(2).permute(2, 0, 1)
            return self.out(self.mha(x, x, x)[0]).mean(0)

    toy = Toy(Attention())
    model = make_supernet(copy.deepcopy(toy), make_plan(toy, images()), dict(ratios=[0.5, 1.0], divisor=1))
    with pytest.raises(ConfigError, match='hides its'):
        CostModel(model, [[8, 8]])
