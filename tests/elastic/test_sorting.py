"""Checkpoints whose channels are brought into the order of their importance."""
from __future__ import annotations

import copy

import pytest
import torch
from mmengine.registry import MODELS

from mmbignas import ConfigError
from mmbignas.elastic import Plan, make_plan, sort_channels
from mmbignas.elastic.builder import build_stock
from mmbignas.elastic.example import example_batches
from mmbignas.elastic.sorting import importances
from tests.elastic.networks import build, densenet, elastic, mobilenet, retinanet
from tests.elastic.test_elastic import outputs

CONFIGS = dict(retinanet=retinanet, densenet=densenet, mobilenet=mobilenet)


@pytest.fixture(scope='module', params=CONFIGS)
def case(request, tmp_path_factory):
    """A config, a plan file, a checkpoint of the stock network, and that network."""
    config, folder = CONFIGS[request.param](), tmp_path_factory.mktemp('stock')
    stock = build(copy.deepcopy(config)).double()
    own = copy.deepcopy(config)
    make_plan(build_stock(own.pop('type'), own), 64).save(folder / 'plan.json')
    torch.save(dict(state_dict=stock.state_dict(), meta={}), folder / 'stock.pth')
    return config, folder, stock


def built(config, folder, **init):
    init = dict(dict(type='mmbignas.SortedCheckpoint', checkpoint=str(folder / 'stock.pth')), **init)
    return MODELS.build(elastic(config, plan=str(folder / 'plan.json'), init_cfg=init))


@pytest.mark.parametrize('by', ['l1', 'bn', 'both'])
def test_channels_are_in_order_and_the_network_is_the_same(case, by):
    config, folder, stock = case
    model = built(config, folder, by=by).double()
    model.init_weights()
    for name, values in importances(model, model.elastic.plan, by).items():
        assert bool((values.diff() <= 1e-9).all()), name
    moved = [name for name, value in model.state_dict().items() if not torch.equal(value, stock.state_dict()[name])]
    assert len(moved) > 10
    batch = next(example_batches(stock, 64))
    batch['inputs'] = batch['inputs'].double()
    for one, other in zip(outputs(model, batch), outputs(stock, batch), strict=True):
        assert torch.allclose(one, other, rtol=1e-9, atol=1e-9 * float(other.abs().max()))


def test_the_importance_is_the_sum_of_absolute_weights_that_make_a_channel():
    config = retinanet()
    model = build_stock(config.pop('type'), config)
    plan = make_plan(model, 64)
    name = 'backbone.layer2.0.conv1'
    layer = model.backbone.layer2[0]
    torch.nn.init.uniform_(layer.bn1.weight)
    expected = layer.conv1.weight.detach().abs().double().sum((1, 2, 3))
    scales = layer.bn1.weight.detach().abs().double()
    assert torch.allclose(importances(model, plan, 'l1')[name], expected)
    assert torch.allclose(importances(model, plan, 'bn')[name], scales)
    assert torch.allclose(importances(model, plan, 'both')[name], scales * expected)
    # A stream that several layers make: the sum over all of them.
    stream = model.backbone.layer2
    makers = [stream[0].conv2, stream[0].downsample[0], stream[1].conv2]
    assert torch.allclose(importances(model, plan, 'l1')['backbone.layer2'],
                          sum(maker.weight.detach().abs().double().sum((1, 2, 3)) for maker in makers))


def test_sorting_twice_changes_nothing():
    config = mobilenet()
    model = build_stock(config.pop('type'), config)
    plan = make_plan(model, 64)
    sort_channels(model, plan)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    sort_channels(model, plan)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_what_cannot_be_is_refused(case, tmp_path):
    config, folder, stock = case
    with pytest.raises(ConfigError, match='SortedCheckpoint.by must be one of l1, bn, both, got'):
        built(config, folder, by='l2').init_weights()
    state = stock.state_dict()
    gone = next(name for name in state if name.endswith('.weight'))
    torch.save({name: value for name, value in state.items() if name != gone}, tmp_path / 'other.pth')
    with pytest.raises(ConfigError, match=f'is of another architecture than the model; 1 lacking: {gone}'):
        built(config, folder, checkpoint=str(tmp_path / 'other.pth')).init_weights()
    plain = MODELS.build(dict(copy.deepcopy(config), init_cfg=dict(
        type='mmbignas.SortedCheckpoint', checkpoint=str(folder / 'stock.pth'))))
    with pytest.raises(ConfigError, match='SortedCheckpoint at a model of type mmbignas.Elastic'):
        plain.init_weights()


def test_the_plan_file_is_what_was_saved(case):
    config, folder, stock = case
    assert Plan.load(folder / 'plan.json').model == type(stock).__name__
