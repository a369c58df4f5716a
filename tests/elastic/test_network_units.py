"""Units of an elastic network: what they compute on the cut network, and tables and predictions of their latency."""
from __future__ import annotations

import random

import pytest
import torch
from mmengine.registry import MODELS

from mmbignas import ConfigError
from mmbignas.cost import CostModel
from mmbignas.latency import LatencyPredictor, build_latency_table, build_table
from mmbignas.latency.measurement import TensorMode
from mmbignas.supernet import Supernet, subnet_config
from tests.elastic.networks import build, densenet, elastic, mobilenet, retinanet
from tests.latency.fake_backend import BESIDE, PER_MAC, STRETCH, FakeBackend, conv_macs

CONFIGS = dict(retinanet=retinanet, densenet=densenet, mobilenet=mobilenet)
SIZE = (64, 96)


@pytest.mark.parametrize('share', ['stage', 'group'])
@pytest.mark.parametrize('name', CONFIGS)
def test_units_of_the_cut_network_add_up_to_it(name, share):
    config = elastic(CONFIGS[name](), example=64, share=share)
    model = build(config)
    cost, rng = CostModel(model, [SIZE]), random.Random(0)
    for subnet in [cost.space.min(), cost.space.max(), *(cost.space.sample(rng) for _ in range(3))]:
        plain = MODELS.build(subnet_config(config, model, subnet)).eval()
        calls = cost.calls(subnet)
        assert len(calls) > 5
        macs = sum(conv_macs(call.bind(plain), tuple(map(torch.zeros, call.inputs))) for call in calls)
        assert macs == conv_macs(TensorMode(plain), (torch.zeros(1, 3, *SIZE),))
        Supernet(model).apply(subnet)
        left_out = [path for path, layer in model.elastic.parts.layers().items() if not layer.is_active]
        assert not {call.path for call in calls} & set(left_out)


def test_known_times_are_predicted(tmp_path, monkeypatch):
    monkeypatch.setattr(build_table, 'PATIENCE', 300)
    config = elastic(retinanet(), example=64, width=dict(ratios=[0.5, 1.0], divisor=2))
    model = build(config)
    cost, rng = CostModel(model, [SIZE]), random.Random(1)
    table = build_latency_table(tmp_path / 'table.json', config, model, cost, FakeBackend(), fitted=4, held_out=3)
    assert (table.fit.intercept, table.fit.slope) == pytest.approx((BESIDE, STRETCH), rel=1e-6)
    predictor, seen = LatencyPredictor(table, cost), set()
    for subnet in [cost.space.min(), cost.space.max(), *(cost.space.sample(rng) for _ in range(6))]:
        plain = MODELS.build(subnet_config(config, model, subnet))
        macs = conv_macs(TensorMode(plain), (torch.zeros(1, 3, *SIZE),))
        assert predictor(subnet) == pytest.approx(BESIDE + STRETCH * PER_MAC * macs, rel=1e-6)
        seen.add(macs)
    assert len(seen) > 5


def test_a_network_that_units_do_not_add_up_to_is_refused(monkeypatch):
    from mmbignas.elastic.network_units import ElasticUnits

    model = build(elastic(retinanet(), example=64))
    read = ElasticUnits.read
    monkeypatch.setattr(ElasticUnits, 'read', lambda self, subnet: read(self, cost.space.max()))
    cost = CostModel(model, [SIZE])
    with pytest.raises(ConfigError, match='RetinaNet cannot be divided into blocks'):
        cost.calls(cost.space.min())
