"""DynamicConv2d against nn.Conv2d with the sliced weight, and the kernel transform against written-out sums."""
from __future__ import annotations

import copy
import pickle
from typing import Any

import numpy as np
import pytest
import torch
from mmcv.cnn import ConvModule, build_conv_layer
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas import ConfigError
from mmbignas.ops import DynamicConv2d, crop, shared_weights

IN, OUT = 12, 16


def activate(conv: DynamicConv2d, out: int, kernel: int | None = None, groups: int | None = None) -> None:
    conv.active_out_channels = out
    conv.active_kernel_size = kernel or conv.active_kernel_size
    conv.active_groups = groups or conv.active_groups


def plain_conv(conv: DynamicConv2d, inputs: int, out: int, kernel: int, groups: int = 1) -> nn.Conv2d:
    """The nn.Conv2d that the dynamic one should be, its weight sliced with ordinary indexing."""
    surplus = (conv.kernel_size[0] - kernel) // 2
    padding = tuple(pad - surplus * dilation for pad, dilation in zip(conv.padding, conv.dilation))
    plain = nn.Conv2d(inputs, out, kernel, conv.stride, padding, conv.dilation, groups, conv.bias is not None)
    rows = slice(surplus, surplus + kernel)
    with torch.no_grad():
        plain.weight.copy_(conv.weight[:out, :inputs // groups, rows, rows])
        if plain.bias is not None:
            plain.bias.copy_(conv.bias[:out])
    return plain


def check_equal(conv: DynamicConv2d, plain: nn.Conv2d, x: Tensor) -> None:
    """Outputs and gradients are equal to the last bit, and the gradient is zero outside the slice."""
    mine, other = x.clone().requires_grad_(), x.clone().requires_grad_()
    out, expected = conv(mine), plain(other)
    assert torch.equal(out, expected)
    slope = torch.randn_like(out)
    conv.zero_grad()
    out.backward(slope)
    expected.backward(slope)
    assert torch.equal(mine.grad, other.grad)
    outs, ins, kernel = *plain.weight.shape[:2], plain.weight.shape[2]
    surplus = (conv.kernel_size[0] - kernel) // 2
    rows = slice(surplus, surplus + kernel)
    gradient = conv.weight.grad.clone()
    assert torch.equal(gradient[:outs, :ins, rows, rows], plain.weight.grad)
    gradient[:outs, :ins, rows, rows] = 0
    assert not gradient.any()
    if plain.bias is not None:
        assert torch.equal(conv.bias.grad[:outs], plain.bias.grad)
        assert not conv.bias.grad[outs:].any()


@pytest.mark.parametrize('out', range(1, OUT + 1))
def test_every_width(out: int) -> None:
    conv = DynamicConv2d(IN, OUT, 3, padding=1)
    activate(conv, out)
    for inputs in range(1, IN + 1):
        check_equal(conv, plain_conv(conv, inputs, out, 3), torch.randn(2, inputs, 6, 5))


@pytest.mark.parametrize('kwargs', [
    dict(padding=3), dict(padding=3, stride=2), dict(padding=6, dilation=2), dict(padding=(4, 5)),
    dict(padding=(3, 6), dilation=(1, 2), stride=(2, 1)), dict(padding=3, bias=False)], ids=str)
@pytest.mark.parametrize('kernel', [7, 5, 3, 1])
def test_kernels(kernel: int, kwargs: dict) -> None:
    conv = DynamicConv2d(IN, OUT, 7, **kwargs)
    x = torch.randn(2, IN, 15, 13)
    full_size = conv(x).shape[2:]
    for inputs, out in ((IN, OUT), (IN, 8), (5, OUT), (7, 3)):
        activate(conv, out, kernel)
        check_equal(conv, plain_conv(conv, inputs, out, kernel), x[:, :inputs])
        assert conv(x[:, :inputs]).shape[2:] == full_size


@pytest.mark.parametrize(('groups', 'inputs', 'out', 'active_groups'), [
    (16, 16, 16, 16), (16, 8, 8, 8), (16, 8, 16, 8), (16, 1, 1, 1),  # depthwise
    (4, 16, 16, 4), (4, 8, 8, 2), (4, 4, 4, 1), (4, 12, 6, 3),  # group width 4
    (4, 8, 16, 4), (2, 8, 4, 2),  # narrower groups
])
def test_groups(groups: int, inputs: int, out: int, active_groups: int) -> None:
    conv = DynamicConv2d(16, 16, 5, padding=2, groups=groups)
    for kernel in (5, 3):
        activate(conv, out, kernel, active_groups)
        check_equal(conv, plain_conv(conv, inputs, out, kernel, active_groups), torch.randn(2, inputs, 7, 7))


def test_double_precision() -> None:
    conv = DynamicConv2d(IN, OUT, 5, padding=2).double()
    activate(conv, 7, 3)
    check_equal(conv, plain_conv(conv, 5, 7, 3).double(), torch.randn(2, 5, 7, 7, dtype=torch.double))


def test_as_built_it_is_nn_conv2d() -> None:
    kwargs: dict[str, Any] = dict(stride=2, padding=1, dilation=1, groups=2, bias=True)
    torch.manual_seed(3)
    conv = DynamicConv2d(8, 12, 3, **kwargs)
    torch.manual_seed(3)
    plain = nn.Conv2d(8, 12, 3, **kwargs)
    assert {k: v.shape for k, v in conv.state_dict().items()} == {k: v.shape for k, v in plain.state_dict().items()}
    assert all(torch.equal(a, b) for a, b in zip(conv.state_dict().values(), plain.state_dict().values()))
    plain.load_state_dict(conv.state_dict(), strict=True)
    conv.load_state_dict(plain.state_dict(), strict=True)
    check_equal(conv, plain, torch.randn(2, 8, 6, 6))


def test_a_cut_copies_no_more_than_it_must() -> None:
    conv = DynamicConv2d(IN, OUT, 3)
    assert conv.active_weight(IN) is conv.weight
    activate(conv, 4)
    assert conv.active_weight(IN).data_ptr() == conv.weight.data_ptr()


def test_input_wider_than_the_layer_is_refused() -> None:
    with pytest.raises(ValueError, match=r'cannot cut \(16, 13, 3, 3\) out of .* \(16, 12, 3, 3\)'):
        DynamicConv2d(IN, OUT, 3)(torch.randn(1, IN + 1, 5, 5))
    conv = DynamicConv2d(IN, OUT, 3)
    activate(conv, OUT + 1)
    with pytest.raises(ValueError, match='cannot cut'):
        conv(torch.randn(1, 3, 5, 5))


@pytest.mark.parametrize(('kwargs', 'part'), [
    (dict(kernel_size=3, padding='same'), r"padding, padding_mode must be numbers, 'zeros', got \('same', 'zeros'\)"),
    (dict(kernel_size=3, padding_mode='reflect'), r"numbers, 'zeros', got \(\(0, 0\), 'reflect'\)"),
    (dict(kernel_size=(3, 5)), r'kernel_size must be square, got \(3, 5\)')])
def test_what_it_cannot_do_is_refused(kwargs: dict, part: str) -> None:
    with pytest.raises(ConfigError, match=part):
        DynamicConv2d(4, 4, **kwargs)


def test_crop() -> None:
    weight = torch.arange(4 * 3 * 5 * 5.).view(4, 3, 5, 5)
    for out, inputs, kernel in ((4, 3, 5), (2, 3, 5), (4, 2, 5), (4, 3, 1), (2, 1, 3)):
        rows = slice((5 - kernel) // 2, (5 + kernel) // 2)
        assert torch.equal(crop(weight, (out, inputs, kernel, kernel)), weight[:out, :inputs, rows, rows])
    assert torch.equal(crop(weight[..., 0, 0], (2, 2)), weight[:2, :2, 0, 0])
    assert torch.equal(crop(weight[:, 0, 0, 0], (3, )), weight[:3, 0, 0, 0])


# -- kernel transform ------------------------------------------------------------------------------------------------


def transformed(conv: DynamicConv2d, out: int, inputs: int, steps: list[tuple[int, int]]) -> np.ndarray:
    """The weight after the steps of the chain, with loops, in float64."""
    weight = conv.weight.detach().double().numpy()[:out, :inputs]
    for large, small in steps:
        matrix = conv.transforms[f'{large}to{small}'].detach().double().numpy()
        start = (large - small) // 2
        result = np.zeros((out, inputs, small, small))
        for o in range(out):
            for i in range(inputs):
                for row in range(small * small):
                    result[o, i, row // small, row % small] = sum(
                        matrix[row, column] * weight[o, i, start + column // small, start + column % small]
                        for column in range(small * small))
        weight = result
    return weight


def transform_conv(sizes: tuple[int, ...] = (7, 5, 3, 1)) -> DynamicConv2d:
    conv = DynamicConv2d(4, 5, 7, padding=3, kernel_sizes=sizes, kernel_transform=True)
    for matrix in conv.transforms.values():
        nn.init.normal_(matrix)
    return conv


CHAINS = [
    ((7, 5, 3, 1), 7, []), ((7, 5, 3, 1), 5, [(7, 5)]), ((7, 5, 3, 1), 3, [(7, 5), (5, 3)]),
    ((7, 5, 3, 1), 1, [(7, 5), (5, 3), (3, 1)]), ((7, 3), 3, [(7, 3)]), ((3, 5, 7), 3, [(7, 5), (5, 3)]),
]


@pytest.mark.parametrize(('sizes', 'kernel', 'steps'), CHAINS)
def test_kernel_transform(sizes: tuple[int, ...], kernel: int, steps: list[tuple[int, int]]) -> None:
    conv = transform_conv(sizes).double()
    for out, inputs in ((5, 4), (3, 2), (5, 1)):
        activate(conv, out, kernel)
        expected = torch.from_numpy(transformed(conv, out, inputs, steps))
        torch.testing.assert_close(conv.active_weight(inputs), expected, rtol=1e-12, atol=1e-12)
        x = torch.randn(2, inputs, 8, 9, dtype=torch.double)
        torch.testing.assert_close(conv(x), F.conv2d(x, expected, conv.bias[:out], padding=kernel // 2))


def test_kernel_transform_gradients() -> None:
    """Against the gradients of the same chain written with einsum."""
    conv = transform_conv((7, 5, 3)).double()
    activate(conv, 3, 3)
    slope = torch.randn(3, 2, 3, 3, dtype=torch.double)
    (conv.active_weight(2) * slope).sum().backward()
    weight, first, second = (tensor.detach().clone().requires_grad_() for tensor in (
        conv.weight, conv.transforms['7to5'], conv.transforms['5to3']))
    five = torch.einsum('rc,oic->oir', first, weight[:3, :2, 1:6, 1:6].reshape(3, 2, 25)).view(3, 2, 5, 5)
    three = torch.einsum('rc,oic->oir', second, five[:, :, 1:4, 1:4].reshape(3, 2, 9)).view(3, 2, 3, 3)
    (three * slope).sum().backward()
    for mine, other in ((conv.weight, weight), (conv.transforms['7to5'], first), (conv.transforms['5to3'], second)):
        torch.testing.assert_close(mine.grad, other.grad)


def test_full_kernel_uses_no_transform() -> None:
    conv = transform_conv()
    conv(torch.randn(1, 4, 7, 7)).sum().backward()
    assert all(matrix.grad is None for matrix in conv.transforms.values())


@pytest.mark.parametrize('kernel', [7, 5, 3, 1])
def test_kernel_transform_starts_as_the_centre_crop(kernel: int) -> None:
    conv = DynamicConv2d(4, 5, 7, padding=3, kernel_sizes=(1, 3, 5, 7), kernel_transform=True)
    activate(conv, 3, kernel)
    x = torch.randn(2, 2, 9, 9)
    assert torch.equal(conv(x), plain_conv(conv, 2, 3, kernel)(x))


def test_kernel_transform_state() -> None:
    conv = transform_conv((3, 7, 5))
    assert list(conv.state_dict()) == ['weight', 'bias', 'transforms.7to5', 'transforms.5to3']
    assert list(DynamicConv2d(4, 5, 3, kernel_sizes=(3, ), kernel_transform=True).state_dict()) == ['weight', 'bias']
    assert list(DynamicConv2d(4, 5, 7, kernel_sizes=(3, 7)).state_dict()) == ['weight', 'bias']


def test_kernel_size_outside_the_chain_is_refused() -> None:
    conv = transform_conv((7, 3))
    activate(conv, 5, 5)
    with pytest.raises(ValueError, match='kernel size 5 has no transform; there are: 7to3'):
        conv(torch.randn(1, 4, 7, 7))


def test_subnet_state() -> None:
    conv = transform_conv()
    state = conv.subnet_state(dict(weight=(3, 2, 3, 3), bias=(3, )))
    activate(conv, 3, 3)
    assert torch.equal(state['weight'], conv.active_weight(2))
    assert torch.equal(state['bias'], conv.bias[:3])
    assert not any(value.requires_grad for value in state.values())
    state['bias'].zero_()
    assert conv.bias[:3].any()


# -- shared weights --------------------------------------------------------------------------------------------------


def levels(channels: int = 2) -> list[Tensor]:
    return [torch.randn(2, channels, size, size) for size in (9, 7, 5)]


@pytest.mark.parametrize('transform', [False, True])
def test_shared_weights_changes_nothing_but_the_number_of_slices(transform: bool,
                                                                 monkeypatch: pytest.MonkeyPatch) -> None:
    conv = (transform_conv() if transform else DynamicConv2d(4, 5, 7, padding=3)).double()
    activate(conv, 3, 3)
    cuts: list[tuple] = []
    cut = DynamicConv2d._cut
    monkeypatch.setattr(DynamicConv2d, '_cut', lambda self, shape: cuts.append(tuple(shape)) or cut(self, shape))
    feats = [x.double() for x in levels()]
    apart = [conv(x) for x in feats]
    assert len(cuts) == 3
    sum(out.square().sum() for out in apart).backward()
    gradients = {name: parameter.grad.clone() for name, parameter in conv.named_parameters()
                 if parameter.grad is not None}
    conv.zero_grad()
    cuts.clear()
    with shared_weights(conv, nn.ReLU()):
        together = [conv(x) for x in feats]
    assert cuts == [(3, 2, 3, 3)]
    sum(out.square().sum() for out in together).backward()
    assert all(torch.equal(a, b) for a, b in zip(apart, together))
    for name, parameter in conv.named_parameters():
        if name in gradients:
            torch.testing.assert_close(parameter.grad, gradients[name])


def test_shared_weights_keeps_a_slice_for_each_setting_and_forgets_them() -> None:
    conv = DynamicConv2d(4, 5, 3, padding=1)
    with shared_weights(conv):
        for out in (5, 3, 4):
            activate(conv, out)
            for inputs in (4, 2):
                x = torch.randn(1, inputs, 5, 5)
                assert torch.equal(conv(x), plain_conv(conv, inputs, out, 3)(x))
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
    assert not conv(torch.randn(1, 2, 5, 5)).any()


def test_shared_weights_forgets_after_an_error() -> None:
    conv = DynamicConv2d(4, 5, 3)
    with pytest.raises(RuntimeError), shared_weights(conv):
        conv(torch.randn(1, 4, 1, 1))
    with torch.no_grad():
        conv.weight.zero_()
        conv.bias.zero_()
    assert not conv(torch.randn(1, 4, 5, 5)).any()


# -- in the ecosystem ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('norm', ['DynamicBatchNorm2d', 'SwitchableBatchNorm2d'])
def test_in_mmcvs_conv_module(norm: str) -> None:
    norm_cfg = dict(type=f'mmbignas.{norm}', **(dict(widths=[3, 8]) if norm.startswith('Switchable') else {}))
    module = ConvModule(6, 8, 5, padding=2, conv_cfg=dict(type='mmbignas.DynamicConv2d'), norm_cfg=norm_cfg)
    assert isinstance(module.conv, DynamicConv2d)
    assert module.norm_name == 'bn'
    plain = ConvModule(4, 3, 3, padding=1, norm_cfg=dict(type='BN'))
    plain.conv.weight.data.copy_(module.conv.weight[:3, :4, 1:4, 1:4])
    activate(module.conv, 3, 3)
    x = torch.randn(2, 4, 6, 6)
    assert torch.equal(module(x), plain(x))


def test_built_from_a_config() -> None:
    conv = build_conv_layer(dict(type='mmbignas.DynamicConv2d', kernel_sizes=(3, 5), kernel_transform=True), 4, 8, 5)
    assert isinstance(conv, DynamicConv2d)
    assert list(conv.transforms) == ['5to3']


def test_channels_last_is_kept() -> None:
    conv = DynamicConv2d(8, 16, 5, padding=2).to(memory_format=torch.channels_last)
    x = torch.randn(2, 4, 6, 6).to(memory_format=torch.channels_last)
    for out, kernel in ((16, 5), (8, 5), (8, 3)):
        activate(conv, out, kernel)
        y = conv(x)
        assert y.is_contiguous(memory_format=torch.channels_last)
        torch.testing.assert_close(y, plain_conv(conv, 4, out, kernel)(x))


@pytest.mark.parametrize('transform', [False, True])
def test_copies_and_pickles(transform: bool) -> None:
    conv = transform_conv() if transform else DynamicConv2d(4, 5, 7, padding=3)
    activate(conv, 3, 3)
    x = torch.randn(2, 2, 7, 7)
    expected = conv(x)
    for other in (copy.deepcopy(conv), pickle.loads(pickle.dumps(conv))):
        assert torch.equal(other(x), expected)
        activate(other, 5, 5)
        assert other(x).shape[1] == 5
    assert torch.equal(conv(x), expected)


@pytest.mark.parametrize('transform', [False, True])
def test_autocast(transform: bool) -> None:
    conv = transform_conv() if transform else DynamicConv2d(4, 5, 7, padding=3)
    activate(conv, 3, 3)
    x = torch.randn(2, 2, 7, 7)
    expected = conv(x)
    with torch.autocast('cpu', torch.bfloat16), shared_weights(conv):
        y = conv(x)
        again = conv(x)
    assert y.dtype == torch.bfloat16
    assert torch.equal(y, again)
    torch.testing.assert_close(y.float(), expected, rtol=0.1, atol=0.1 * expected.abs().max().item())
    y.float().sum().backward()
    assert conv.weight.grad.dtype == torch.float32
    assert conv.weight.grad[:3, :2, 2:5, 2:5].any()
