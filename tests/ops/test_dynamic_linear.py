"""DynamicLinear against nn.Linear with the sliced weight."""
from __future__ import annotations

import copy
import pickle

import pytest
import torch
from torch import nn

from mmbignas.ops import DynamicLinear
from mmbignas.registry import MODELS


@pytest.mark.parametrize('bias', [True, False])
@pytest.mark.parametrize('shape', [(3, ), (3, 2), ()], ids=str)
def test_every_width(bias: bool, shape: tuple[int, ...]) -> None:
    linear = DynamicLinear(6, 5, bias=bias)
    for inputs in range(1, 7):
        for out in range(1, 6):
            linear.active_out_features = out
            plain = nn.Linear(inputs, out, bias=bias)
            plain.load_state_dict({name: value[:out, :inputs] if value.dim() == 2 else value[:out]
                                   for name, value in linear.state_dict().items()})
            mine = torch.randn(*shape, inputs).requires_grad_()
            other = mine.detach().clone().requires_grad_()
            y, expected = linear(mine), plain(other)
            assert torch.equal(y, expected)
            slope = torch.randn_like(y)
            linear.zero_grad()
            y.backward(slope)
            expected.backward(slope)
            assert torch.equal(mine.grad, other.grad)
            gradient = linear.weight.grad.clone()
            assert torch.equal(gradient[:out, :inputs], plain.weight.grad)
            gradient[:out, :inputs] = 0
            assert not gradient.any()
            if bias:
                assert torch.equal(linear.bias.grad[:out], plain.bias.grad)
                assert not linear.bias.grad[out:].any()


def test_as_built_it_is_nn_linear() -> None:
    linear, plain = DynamicLinear(6, 5), nn.Linear(6, 5)
    plain.load_state_dict(linear.state_dict(), strict=True)
    x = torch.randn(2, 6)
    assert torch.equal(linear(x), plain(x))


def test_input_wider_than_the_layer_is_refused() -> None:
    with pytest.raises(ValueError, match='cannot cut'):
        DynamicLinear(6, 5)(torch.randn(2, 7))


def test_subnet_state() -> None:
    linear = DynamicLinear(6, 5)
    state = linear.subnet_state(dict(weight=(3, 4), bias=(3, )))
    assert torch.equal(state['weight'], linear.weight[:3, :4])
    assert torch.equal(state['bias'], linear.bias[:3])
    state['weight'].zero_()
    assert linear.weight[:3, :4].any()
    assert not state['bias'].requires_grad


def test_built_copied_pickled_autocast() -> None:
    linear = MODELS.build(dict(type='mmbignas.DynamicLinear', in_features=6, out_features=5))
    linear.active_out_features = 3
    x = torch.randn(2, 4)
    for other in (copy.deepcopy(linear), pickle.loads(pickle.dumps(linear))):
        assert torch.equal(other(x), linear(x))
    with torch.autocast('cpu', torch.bfloat16):
        y = linear(x)
    assert y.dtype == torch.bfloat16
    torch.testing.assert_close(y.float(), linear(x), rtol=0.1, atol=0.1)
