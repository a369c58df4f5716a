"""Dynamic and switchable batch normalisation against nn.BatchNorm2d on the sliced state."""
from __future__ import annotations

import copy
import pickle
from typing import Any

import pytest
import torch
from mmcv.cnn import build_norm_layer
from torch import Tensor, nn

from mmbignas import ConfigError
from mmbignas.ops import DynamicBatchNorm2d, SwitchableBatchNorm2d

WIDTH = 6
KINDS: list[dict[str, Any]] = [
    dict(), dict(momentum=0.3, eps=0.1), dict(momentum=None), dict(affine=False), dict(track_running_stats=False)]


def scrambled(norm: nn.Module) -> Any:
    """Give every parameter and statistic a value of its own."""
    with torch.no_grad():
        for name, value in norm.state_dict().items():
            if value.is_floating_point():
                value.copy_(torch.rand_like(value) + (0.5 if 'var' in name or 'weight' in name else -0.5))
    return norm


def plain_norm(norm: DynamicBatchNorm2d, width: int, **kwargs: Any) -> nn.BatchNorm2d:
    plain = nn.BatchNorm2d(width, **kwargs)
    plain.load_state_dict({name: value[:width] if value.dim() else value for name, value in norm.state_dict().items()})
    return plain.train(norm.training)


def check_equal(norm: nn.Module, plain: nn.BatchNorm2d, x: Tensor, own: nn.Module | None = None) -> None:
    """Outputs, gradients and buffers are those of ``plain``; what lies outside the slice is left alone.

    ``own`` is the part of ``norm`` that holds the parameters in question.
    """
    own = own or norm
    width = x.shape[1]
    before = {name: value.clone() for name, value in norm.state_dict().items()}
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    y, expected = norm(mine), plain(other)
    assert torch.equal(y, expected)
    slope = torch.randn_like(y)
    norm.zero_grad()
    y.backward(slope)
    expected.backward(slope)
    assert torch.equal(mine.grad, other.grad)
    for name, parameter in plain.named_parameters():
        gradient = own.get_parameter(name).grad
        assert torch.equal(gradient[:width], parameter.grad)
        assert not gradient[width:].any()
    for name, buffer in plain.named_buffers():
        assert torch.equal(own.get_buffer(name)[:width] if buffer.dim() else own.get_buffer(name), buffer)
    prefix = next(name for name, module in norm.named_modules() if module is own)
    for name, value in norm.state_dict().items():
        path, _, leaf = name.rpartition('.')
        mine_now = path == prefix
        if not mine_now:
            assert torch.equal(value, before[name])
        elif value.dim() and leaf.startswith('running'):
            assert torch.equal(value[width:], before[name][width:])


@pytest.mark.parametrize('kwargs', KINDS, ids=str)
@pytest.mark.parametrize('training', [True, False])
def test_every_width(kwargs: dict, training: bool) -> None:
    norm = scrambled(DynamicBatchNorm2d(WIDTH, **kwargs)).train(training)
    for width in (*range(1, WIDTH + 1), 3):
        check_equal(norm, plain_norm(norm, width, **kwargs), torch.randn(3, width, 4, 5))


@pytest.mark.parametrize('width', [WIDTH, 4])
@pytest.mark.parametrize('training', [True, False])
def test_tracking_switched_off_later(width: int, training: bool) -> None:
    norm = scrambled(DynamicBatchNorm2d(WIDTH)).train(training)
    plain = plain_norm(norm, width)
    norm.track_running_stats = plain.track_running_stats = False
    check_equal(norm, plain, torch.randn(3, width, 4, 5))


@pytest.mark.parametrize('training', [True, False])
def test_without_bias(training: bool) -> None:
    """As newer releases of torch can build it."""
    norm = scrambled(DynamicBatchNorm2d(WIDTH)).train(training)
    plain = plain_norm(norm, 4)
    for layer in (norm, plain):
        layer.register_parameter('bias', None)
    check_equal(norm, plain, torch.randn(3, 4, 4, 5))


def test_without_momentum_it_averages_over_batches() -> None:
    norm = DynamicBatchNorm2d(WIDTH, momentum=None)
    batches = [torch.randn(3, 4, 5, 5) for _ in range(3)]
    for batch in batches:
        norm(batch)
    assert norm.num_batches_tracked == 3
    means = torch.stack([batch.mean((0, 2, 3)) for batch in batches])
    torch.testing.assert_close(norm.running_mean[:4], means.mean(0))
    assert not norm.running_mean[4:].any()


@pytest.mark.parametrize('kind', [DynamicBatchNorm2d, SwitchableBatchNorm2d])
def test_as_built_it_is_nn_batch_norm(kind: type) -> None:
    norm, plain = kind(WIDTH), nn.BatchNorm2d(WIDTH)
    assert list(norm.state_dict()) == list(plain.state_dict())
    plain.load_state_dict(norm.state_dict(), strict=True)
    check_equal(norm, plain, torch.randn(3, WIDTH, 4, 4))


@pytest.mark.parametrize('width', [WIDTH, 4])
def test_what_torch_refuses_is_refused(width: int) -> None:
    norm = DynamicBatchNorm2d(WIDTH)
    with pytest.raises(ValueError, match='4D input'):
        norm(torch.randn(3, width, 4))
    with pytest.raises(ValueError, match='more than 1 value per channel'):
        norm(torch.randn(1, width, 1, 1))
    with pytest.raises(RuntimeError):
        norm(torch.randn(3, WIDTH + 1, 4, 4))


def test_subnet_state() -> None:
    norm = scrambled(DynamicBatchNorm2d(WIDTH))
    norm.num_batches_tracked.fill_(7)
    shapes = {name: tuple(value.shape) for name, value in nn.BatchNorm2d(4).state_dict().items()}
    state = norm.subnet_state(shapes)
    assert list(state) == list(shapes)
    assert state['num_batches_tracked'] == 7
    for name in ('weight', 'bias', 'running_mean', 'running_var'):
        assert torch.equal(state[name], norm.state_dict()[name][:4])
        state[name].zero_()
        assert norm.state_dict()[name][:4].any()


@pytest.mark.parametrize('kwargs', KINDS, ids=str)
@pytest.mark.parametrize('training', [True, False])
def test_switchable_has_a_norm_for_each_width(kwargs: dict, training: bool) -> None:
    norm = scrambled(SwitchableBatchNorm2d(WIDTH, widths=(4, 2, 4, WIDTH), **kwargs)).train(training)
    for width in (2, 4, WIDTH, 4):
        own = norm if width == WIDTH else norm.narrow[str(width)]
        plain = nn.BatchNorm2d(width, **kwargs).train(training)
        plain.load_state_dict({name: value for name, value in own.state_dict().items() if 'narrow' not in name})
        check_equal(norm, plain, torch.randn(3, width, 4, 5), own)


def test_switchable_state() -> None:
    norm = scrambled(SwitchableBatchNorm2d(WIDTH, widths=(2, 4, WIDTH)))
    assert list(norm.narrow) == ['2', '4']
    shapes = {width: {name: tuple(value.shape) for name, value in nn.BatchNorm2d(width).state_dict().items()}
              for width in (2, 3, WIDTH)}
    assert torch.equal(norm.subnet_state(shapes[2])['weight'], norm.narrow['2'].weight)
    assert torch.equal(norm.subnet_state(shapes[WIDTH])['running_var'], norm.running_var)
    with pytest.raises(ValueError, match='no statistics for width 3; there are those of 2, 4, 6'):
        norm.subnet_state(shapes[3])


def test_switchable_refuses_other_widths() -> None:
    norm = SwitchableBatchNorm2d(WIDTH, widths=(2, 4))
    with pytest.raises(ValueError, match='no statistics for width 3; it has: 2, 4, 6'):
        norm(torch.randn(2, 3, 4, 4))
    for widths in ((2, WIDTH + 1), (0, )):
        with pytest.raises(ConfigError, match=r'widths must be a list of integers from 1 to 6, got \('):
            SwitchableBatchNorm2d(WIDTH, widths=widths)


@pytest.mark.parametrize('config', [
    dict(type='mmbignas.DynamicBatchNorm2d', momentum=0.2), dict(type='mmbignas.SwitchableBatchNorm2d', widths=[4])])
def test_built_copied_pickled(config: dict) -> None:
    name, norm = build_norm_layer(dict(config, requires_grad=False), WIDTH)
    assert name == 'bn'
    assert not norm.weight.requires_grad
    norm = scrambled(norm).eval()
    x = torch.randn(2, 4, 3, 3)
    for other in (copy.deepcopy(norm), pickle.loads(pickle.dumps(norm))):
        assert torch.equal(other(x), norm(x))


@pytest.mark.parametrize('training', [True, False])
def test_channels_last_and_autocast(training: bool) -> None:
    norm = scrambled(DynamicBatchNorm2d(WIDTH)).train(training)
    x = torch.randn(3, 4, 5, 5).to(memory_format=torch.channels_last)
    plain = plain_norm(norm, 4)
    y = norm(x)
    assert y.is_contiguous(memory_format=torch.channels_last)
    torch.testing.assert_close(y, plain(x))
    with torch.autocast('cpu', torch.bfloat16):
        half, expected = norm(x.bfloat16()), plain(x.bfloat16())
    assert half.dtype == expected.dtype
    assert torch.equal(half, expected)
