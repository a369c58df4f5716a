"""What the self-check and verification are worth: mistakes that were put in are found and named."""
from __future__ import annotations

import copy

import pytest
import torch

from mmbignas import ConfigError
from mmbignas.elastic import make_plan, self_check
from mmbignas.elastic.builder import build_stock
from mmbignas.elastic.planning import traced
from tests.elastic.networks import densenet, retinanet


def stock(config):
    return build_stock(config.pop('type'), config)


@pytest.mark.parametrize('config', [retinanet, densenet])
@pytest.mark.parametrize('forgotten', ['weight', 'bias', 'running_mean'])
def test_a_vector_that_is_left_out_is_found(config, forgotten):
    model = stock(config())
    batch, plan = traced(model, 64)
    assert self_check.check(model, plan, batch) < 1e-10
    wrong = copy.deepcopy(plan)
    norms = [name for name in plan.tensors if name.endswith(f'.{forgotten}') and len(plan.tensors[name]) == 1
             and name.replace(forgotten, 'running_var') in plan.tensors]
    del wrong.tensors[norms[3]]
    if forgotten == 'running_mean':  # what a check with the network's own statistics would see, and a batch's does not
        assert self_check.check(model, wrong, batch) < 1e-10
        return
    with pytest.raises(ConfigError, match='because of backbone.*; the rule of an operation there is wrong'):
        self_check.check(model, wrong, batch)


def test_a_network_and_all_random_states_are_left_as_they_were():
    model = stock(retinanet())
    before = {name: value.clone() for name, value in model.state_dict().items()}
    modes = [module.training for module in model.modules()]
    state = torch.get_rng_state()
    first = make_plan(model, 64)
    assert torch.equal(torch.get_rng_state(), state)
    assert [module.training for module in model.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())
    assert make_plan(model, 64).digest == first.digest


def test_a_network_that_needs_data_says_how_to_give_it():
    config = retinanet()
    config['bbox_head']['loss_cls'] = dict(type='QualityFocalLoss', use_sigmoid=True)
    with pytest.raises(ConfigError, match="in mode 'loss' to be traced.*example='package.module.function'"):
        make_plan(stock(config), 64)
