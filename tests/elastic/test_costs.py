"""Costs of elastic networks, against MMEngine's analysis of the networks cut to the subnets' shapes."""
from __future__ import annotations

import copy
import logging
import random

import pytest
import torch
from mmcv.ops import DeformConv2d, ModulatedDeformConv2d
from mmengine.analysis import FlopAnalyzer
from mmengine.config import ConfigDict
from mmengine.registry import MODELS
from mmengine.structures import InstanceData
from torch import nn

from mmbignas import ConfigError
from mmbignas.cost import CostModel
from mmbignas.elastic import cut_arguments, cut_network, make_plan
from mmbignas.elastic.builder import make_supernet
from mmbignas.supernet import Supernet, subnet_config
from tests.elastic.networks import Toy, build, densenet, elastic, faster_rcnn, images, mobilenet, retinanet

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


class Attention(nn.Module):
    """Torch's own attention, between tokens and learned queries."""

    def __init__(self):
        super().__init__()
        self.a, self.mha, self.out = nn.Conv2d(3, 16, 1), nn.MultiheadAttention(16, 4), nn.Linear(16, 2)
        self.queries = nn.Parameter(torch.randn(5, 1, 16))

    def forward(self, x):
        x = self.a(x).flatten(2).permute(2, 0, 1)
        queries = self.queries.repeat(1, x.shape[1], 1)
        queries = queries + self.mha(queries, queries, queries)[0]
        return self.out(self.mha(queries, x, x)[0]).mean(0)


class Einsum(nn.Module):
    """Sums over several axes, one and none; MMEngine counts some equations by NumPy's report of four digits."""

    def __init__(self):
        super().__init__()
        self.a, self.b, self.out = nn.Conv2d(3, 24, 1), nn.Conv2d(3, 24, 1), nn.Linear(24, 2)

    def forward(self, x):
        one, two = self.a(x).flatten(2), self.b(x).flatten(2)
        scores = torch.einsum('bcn,bcm->bnm', one, two) + torch.einsum('b c n, b c m -> b n m', two, one)
        mixed = torch.einsum('bnm,bcm->bcn', scores, two) * torch.einsum('bcn,bn->bcn', one, scores[:, 0])
        return self.out(torch.einsum('bcn,bcn->bc', mixed, one))


class Deformable(nn.Module):
    """MMCV's deformable convolutions, which no analysis counts."""

    def __init__(self):
        super().__init__()
        self.a, self.where = nn.Conv2d(3, 8, 1), nn.Conv2d(8, 27, 3, padding=1)
        self.one, self.two = DeformConv2d(8, 12, 3, padding=1), ModulatedDeformConv2d(12, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        x = self.a(x)
        offset, mask = self.where(x).split([18, 9], 1)
        offset = offset.contiguous()
        return self.out(self.two(self.one(x, offset), offset, mask.sigmoid()))


class Same(nn.Module):
    """A convolution whose padding is a word, which MMEngine passes over."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 8, 3, padding='same'), nn.Conv2d(8, 8, 3, padding=1)
        self.out = nn.Conv2d(8, 2, 1)

    def forward(self, x):
        return self.out(self.b(self.a(x)))


@pytest.mark.parametrize('net', [Attention, Einsum, Deformable, Same])
def test_costs_of_operations_in_python_and_compiled_ones(net):
    toy = Toy(net())
    plan = make_plan(toy, images(12))
    assert plan.groups
    model = make_supernet(copy.deepcopy(toy), plan, dict(ratios=[0.25, 0.5, 0.75, 1.0], divisor=1))
    cost, rng = CostModel(model, [[12, 12]]), random.Random(0)
    assert cost._divided
    for subnet in [cost.space.min(), cost.space.max(), *(cost.space.sample(rng) for _ in range(5))]:
        Supernet(model).apply(subnet)
        cut = cut_network(copy.deepcopy(toy), **cut_arguments(model, model.elastic.parts))
        assert cost(subnet)[:3] == analysis(cut, (12, 12))


@pytest.mark.parametrize('equation', ['bci,bcj,bck->bijk', 'bci,bcj', '...ci,...cj->...ij'])
def test_sums_that_cannot_be_counted_are_refused(equation):
    class Hidden(nn.Module):
        def __init__(self):
            super().__init__()
            self.a = nn.Conv2d(3, 8, 1)

        def forward(self, x):
            x = self.a(x).flatten(2)
            return torch.einsum(equation, *[x] * len(equation.split('->')[0].split(','))).mean()[None]

    toy = Toy(Hidden())
    model = make_supernet(copy.deepcopy(toy), make_plan(toy, images()), dict(ratios=[0.5, 1.0], divisor=1))
    with pytest.raises(ConfigError, match='the cost of torch.einsum'):
        CostModel(model, [[8, 8]])


class TwoStages(nn.Module):
    """A two-stage detector whose second stage looks at boxes of its own."""

    def __init__(self, model: nn.Module, number: int) -> None:
        super().__init__()
        self.model, start = model, torch.rand(number, 2) * 40
        self.boxes = torch.cat([start, start + 1 + torch.rand(number, 2) * 20], 1)

    def forward(self, image):
        features = self.model.extract_feat(image)
        return self.model.rpn_head(features), self.model.roi_head(features, [InstanceData(bboxes=self.boxes)])


def test_costs_of_a_two_stage_detector_are_those_for_the_proposals_that_an_image_may_have():
    config = elastic(faster_rcnn(), example=64)
    config['test_cfg']['rpn']['max_per_img'] = 37
    model = build(config)
    cost, rng = CostModel(model, [[64, 64]]), random.Random(0)
    assert cost._divided
    for subnet in [cost.space.min(), cost.space.max(), *(cost.space.sample(rng) for _ in range(3))]:
        plain = MODELS.build(ConfigDict(subnet_config(config, model, Supernet(model).space.canonical(subnet))))
        analyzer = FlopAnalyzer(TwoStages(plain, 37).eval(), torch.randn(1, 3, 64, 64))
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        assert cost(subnet).ops == analyzer.total()
        assert cost(subnet).params == sum(own.numel() for own in plain.parameters())
