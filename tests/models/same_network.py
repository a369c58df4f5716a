"""Comparing a supernet that computes as a subnet with the plain network of that subnet, tensor by tensor."""
from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from mmcv.cnn.bricks import Swish
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.models.blocks import ConvTower
from mmbignas.ops import DynamicConv2d, DynamicLayer, SwitchableBatchNorm2d
from tests.arithmetic import PLAIN, Arithmetic

Run = Callable[[nn.Module, Any], Any]
NO_LAYERS = ('bbox_head.loss', 'head.loss', 'loss', 'data_preprocessor')  # parts of a model that are no network


def tensors(outputs: Any) -> list[Tensor]:
    """The tensors in nested lists, tuples and dicts, in order."""
    if isinstance(outputs, Tensor):
        return [outputs]
    if isinstance(outputs, dict):
        outputs = outputs.values()
    return [tensor for output in outputs for tensor in tensors(output)]


def window(full: Iterable[int], part: Iterable[int]) -> tuple[slice, ...]:
    """Where a subnet's parameter lies in the supernet's: first channels, centre of the kernel."""
    return tuple(slice((have - want) // 2, (have + want) // 2) if dim >= 2 else slice(want)
                 for dim, (have, want) in enumerate(zip(full, part)))


def chain(weight: Tensor, transforms: dict[str, Tensor], kernel: int) -> Tensor:
    """The kernel transform written as sums over the k x k positions."""
    for name, matrix in transforms.items():
        large, small = (int(size) for size in name.split('to'))
        if small < kernel:
            break
        start = (large - small) // 2
        centre = weight[:, :, start:start + small, start:start + small].flatten(2)
        weight = (centre[:, :, None, :] * matrix).sum(-1).view(*weight.shape[:2], small, small)
    return weight


def source_of(supernet: nn.Module, name: str, width: int | None) -> str:
    """The supernet's name of a plain network's parameter or buffer."""
    path, _, leaf = name.rpartition('.')
    layer = supernet.get_submodule(path)
    if isinstance(layer, SwitchableBatchNorm2d) and width not in (None, layer.num_features):
        return f'{path}.narrow.{width}.{leaf}'
    return name


def widths_of(plain: nn.Module) -> dict[str, int | None]:
    """Width of the layer that each entry of the state belongs to, by its name."""
    state = plain.state_dict()
    return {name: state[f'{name.rpartition(".")[0]}.weight'].shape[0] for name in state}


def check_same_network(supernet: nn.Module, plain: nn.Module, inputs: Any, run: Run = lambda net, x: net(x),
                       arithmetic: Arithmetic = PLAIN) -> None:
    """Outputs, gradients and running statistics of both are equal to the last bit, in eval and in train mode.

    Args:
        supernet: with the subnet applied.
        plain: the subnet's network, with its weights.
        inputs: what ``run`` gives to a network.
        run: computes the outputs of a network.
        arithmetic: the precision and memory format of both.
    """
    check_plain_layers(plain)
    arithmetic.convert(supernet, plain)
    inputs = arithmetic.converted(inputs)
    supernet.eval()
    plain.eval()
    with torch.no_grad(), arithmetic.autocast():
        outputs, expected = tensors(run(supernet, inputs)), tensors(run(plain, inputs))
    assert len(outputs) == len(expected) > 0
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected))

    before = {name: buffer.clone() for name, buffer in supernet.named_buffers()}
    for network in (supernet, plain):
        network.train()
        network.zero_grad()
    results = []
    for network in (supernet, plain):
        with arithmetic.autocast():  # of each alone, as it keeps what it has converted
            results.append(tensors(run(network, inputs)))
    outputs, expected = results
    assert all(torch.equal(a, b) for a, b in zip(outputs, expected))
    slopes = [torch.randn_like(output) for output in outputs]
    for own in results:
        sum((output * slope).sum() for output, slope in zip(own, slopes)).backward()
    check_parameters(supernet, plain)
    check_buffers(supernet, plain, before)


def check_plain_layers(plain: nn.Module) -> None:
    """Whatever holds a parameter or a statistic is a layer of torch itself."""
    for name, module in plain.named_modules():
        assert not isinstance(module, DynamicLayer), name
        if list(module.parameters(recurse=False)) or 'running_mean' in dict(module.named_buffers(recurse=False)):
            assert type(module) in (nn.Conv2d, nn.Linear, nn.BatchNorm2d), f'{name} is a {type(module)}'
        if not list(module.children()) and not name.startswith(NO_LAYERS):
            assert type(module).__module__.startswith('torch.nn') or isinstance(module, (ConvTower, Swish)), name


def check_parameters(supernet: nn.Module, plain: nn.Module) -> None:
    """Parameters are slices of the supernet's, and so are their gradients; all other gradients are zero."""
    widths, mine = widths_of(plain), dict(supernet.named_parameters())
    remaining = {name: parameter.grad.clone() for name, parameter in mine.items() if parameter.grad is not None}
    for name, parameter in plain.named_parameters():
        source = source_of(supernet, name, widths[name])
        path = source.rpartition('.')[0]
        layer = supernet.get_submodule(path)
        where = window(mine[source].shape, parameter.shape)
        assert parameter.grad is not None, name
        if isinstance(layer, DynamicConv2d) and layer.transforms and parameter.dim() == 4 and (
                parameter.shape[2] < layer.kernel_size[0]):
            check_transformed(layer, parameter)
            for key in (source, *(f'{path}.transforms.{step}' for step in layer.transforms)):
                remaining.pop(key, None)
            continue
        assert torch.equal(parameter, mine[source][where]), name
        gradient = remaining[source]
        assert torch.equal(gradient[where], parameter.grad), name
        gradient[where] = 0
    for name, gradient in remaining.items():
        assert not gradient.any(), f'{name} has a gradient that the subnet does not have'


def check_transformed(layer: DynamicConv2d, parameter: Tensor) -> None:
    """Weight and gradients of a convolution whose smaller kernel is a learned function of the full one."""
    full = layer.weight.detach().double().requires_grad_()
    steps = {name: matrix.detach().double().requires_grad_() for name, matrix in layer.transforms.items()}
    expected = chain(full[:parameter.shape[0], :parameter.shape[1]], steps, parameter.shape[2])
    torch.testing.assert_close(parameter.double(), expected, rtol=1e-5, atol=1e-6)
    assert parameter.grad is not None
    expected.backward(parameter.grad.double())
    for mine, other in ((layer.weight, full), *((layer.transforms[name], steps[name]) for name in steps)):
        if other.grad is None:
            assert mine.grad is None or not mine.grad.any()
        else:
            assert mine.grad is not None
            # Terms as large as the slopes may cancel in the sum.
            scale = max(other.grad.abs().max(), parameter.grad.norm()).item()
            torch.testing.assert_close(mine.grad.double(), other.grad, rtol=1e-4, atol=1e-5 * scale)


def check_buffers(supernet: nn.Module, plain: nn.Module, before: dict[str, Tensor]) -> None:
    """Running statistics moved as the plain network's did, and nowhere else."""
    widths, mine = widths_of(plain), dict(supernet.named_buffers())
    untouched = {name: torch.equal(buffer, before[name]) for name, buffer in mine.items()}
    for name, buffer in plain.named_buffers():
        if name not in widths:
            continue
        source = source_of(supernet, name, widths[name])
        where = window(mine[source].shape, buffer.shape)
        assert torch.equal(mine[source][where], buffer), name
        assert not torch.equal(buffer, before[source][where]), f'{name} did not move'
        rest = mine[source].clone()
        rest[where] = before[source][where]
        assert torch.equal(rest, before[source]), f'{name} moved outside the slice'
        untouched[source] = True
    assert all(untouched.values()), [name for name, same in untouched.items() if not same]


def relu_features(widths: Iterable[int], size: int = 16, count: int = 2) -> list[Tensor]:
    """Features of images as a backbone gives them: one tensor a level, each half the size of the one before."""
    sizes = [-(-size // 2**level) for level, _ in enumerate(widths)]
    return [F.relu(torch.randn(count, width, own, own)) for width, own in zip(widths, sizes)]
