"""Counting the operations of a forward pass as MMEngine's complexity analysis does.

MMEngine traces a network with ``torch.jit`` and counts per operator. These are the same counts, taken while the
network runs. On meta tensors that costs little: no weights, no arithmetic, no trace.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import MethodWrapperType
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mmbignas.errors import ConfigError
from mmbignas.utils.models import tensors_in

Operand = Callable[[int, str], Any]
Handler = Callable[[Operand, Any], int]


def _size(value: Any) -> int:
    return math.prod(value.shape)


def _convolution(operand: Operand, output: Tensor) -> int:
    return output.shape[0] * _size(operand(1, 'weight')) * math.prod(output.shape[2:])


def _transposed_convolution(operand: Operand, output: Tensor) -> int:
    x = operand(0, 'input')
    return x.shape[0] * _size(operand(1, 'weight')) * math.prod(x.shape[2:])


def _linear(operand: Operand, output: Tensor) -> int:
    return _size(operand(0, 'input')) * operand(1, 'weight').shape[0]


def _matmul(operand: Operand, output: Tensor) -> int:
    first, second = operand(0, 'input'), operand(1, 'other')
    if second is None:
        second = operand(1, 'mat2')
    return _size(first) * (second.shape[-1] if second.dim() > 1 else 1)


def _addmm(operand: Operand, output: Tensor) -> int:
    return _size(operand(1, 'mat1')) * output.shape[-1]


def _batch_norm(weight: int) -> Handler:

    def count(operand: Operand, output: Tensor) -> int:
        affine = operand(weight, 'weight') is not None
        return _size(output) * ((5 if affine else 4) if operand(5, 'training') else (2 if affine else 1))
    return count


def _norm(weight: int) -> Handler:
    return lambda operand, output: _size(output) * (4 if operand(weight, 'weight') is None else 5)


def _interpolate(operand: Operand, output: Tensor) -> int:
    mode = operand(3, 'mode') or 'nearest'
    return _size(output) * {'nearest': 1, 'bilinear': 4}.get(mode, 0) if output.dim() == 4 else 0

# What MMEngine calls `conv` and `linear`.
MACS: dict[Any, Handler] = {
    **dict.fromkeys((torch.conv1d, torch.conv2d, torch.conv3d), _convolution),
    **dict.fromkeys((torch.conv_transpose1d, torch.conv_transpose2d, torch.conv_transpose3d), _transposed_convolution),
    F.linear: _linear,
}

# What it counts beside these.
OTHERS: dict[Any, Handler] = {
    **dict.fromkeys((torch.matmul, torch.mm, torch.bmm, Tensor.matmul, Tensor.mm, Tensor.bmm, Tensor.__matmul__),
                    _matmul),
    torch.addmm: _addmm,
    F.batch_norm: _batch_norm(3),
    torch.batch_norm: _batch_norm(1),
    **dict.fromkeys((F.group_norm, torch.group_norm, F.layer_norm, torch.layer_norm), _norm(2)),
    F.instance_norm: _norm(3),
    torch.instance_norm: _norm(1),
    F.interpolate: _interpolate,
    F.adaptive_avg_pool2d: lambda operand, output: _size(operand(0, 'input')),
    F.grid_sample: lambda operand, output: 4 * _size(output),
}

# Functions that compute such operations inside, where they are not seen.
OPAQUE = (F.multi_head_attention_forward, torch.einsum)

# Functions whose output has the shape of their first operand, always or if both operands are alike. Torch takes long
# to find that out on meta tensors.
SAME_SHAPE = (F.batch_norm, F.group_norm, F.layer_norm, F.instance_norm, F.relu)

SAME_SHAPE_OF_TWO = (Tensor.add, torch.add, Tensor.mul, torch.mul)


def on_shapes(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a torch function on meta tensors."""
    if func in SAME_SHAPE and args and not kwargs.get('inplace') or func in SAME_SHAPE_OF_TWO and not kwargs and all(
            isinstance(arg, Tensor) and (arg.shape, arg.dtype) == (args[0].shape, args[0].dtype) for arg in args):
        return args[0].new_empty(args[0].shape)
    return func(*args, **kwargs)


class OperationCounter(TorchFunctionMode):
    """While it is active, counts the operations on tensors that follow from an input.

    Operations on parameters alone, such as cutting out a slice or transforming a kernel, do not exist in a plain
    network and are not counted.

    Args:
        inputs: the inputs.
        add: called with MACs and operations (MACs included) of each counted operation.

    Raises:
        ConfigError: for an operation that cannot be counted.
    """

    def __init__(self, inputs: Iterable[Tensor], add: Callable[[int, int], None]) -> None:
        super().__init__()
        self._data = {id(tensor): tensor for tensor in inputs}  # kept alive, so that ids stay theirs
        self._add = add

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, MethodWrapperType):  # reads an attribute, such as a shape
            return func(*args)
        kwargs = kwargs or {}
        output = on_shapes(func, args, kwargs)
        if not any(id(tensor) in self._data for tensor in tensors_in((args, kwargs))):
            return output
        self._data.update((id(tensor), tensor) for tensor in tensors_in(output))
        if func in OPAQUE:
            raise ConfigError(f'model: the cost of {getattr(func, "__name__", func)} is not known, since it hides its '
                              'operations; use linear layers and torch.matmul in its place')
        count = MACS.get(func) or OTHERS.get(func)
        if count is not None:

            def operand(index: int, name: str) -> Any:
                return args[index] if index < len(args) else kwargs.get(name)

            amount = count(operand, output)
            self._add(amount if func in MACS else 0, amount)
        return output
