"""Counting the operations of a forward pass as MMEngine's complexity analysis does.

MMEngine traces a network with ``torch.jit`` and counts per operator. These are the same counts, taken while the
network runs. On meta tensors that costs little: no weights, no arithmetic, no trace.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from types import MethodWrapperType
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode

from mmbignas.cost.liveness import Operations
from mmbignas.errors import ConfigError
from mmbignas.utils.models import tensors_in

Operand = Callable[[int, str], Any]
Handler = Callable[[Operand, Any], Any]


class Rounded(NamedTuple):
    """An amount that MMEngine reads off NumPy's report, which has four digits.

    Args:
        size: product of the sizes of all axes.
        operations: for each place in the product: 2 where something is summed up, otherwise 1.
    """

    size: Any
    operations: int

    def value(self, size: int) -> int:
        """The amount.

        Args:
            size: the product as a number.
        """
        return math.floor(float(f'{size * self.operations:.3e}') / 2)


def _size(value: Any) -> int:
    return math.prod(value.shape)


def _convolution(operand: Operand, output: Tensor) -> int:
    if isinstance(operand(4, 'padding'), str):  # another operator, which MMEngine does not know
        return 0
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


def _einsum(operand: Operand, output: Tensor) -> Any:
    equation = operand(0, 'equation').replace(' ', '')
    tensors = operand(1, 'operands')
    tensors = list(tensors) if isinstance(tensors, (list, tuple)) else [tensors, operand(2, 'operands')]
    terms, _, result = equation.partition('->')
    letters = terms.split(',')
    if not equation.replace(',', '').replace('->', '').isalpha() or not result or len(letters) != 2:
        raise ConfigError(f'model: the cost of torch.einsum({equation!r}) is not known; of two tensors with all axes '
                          'named, and an arrow, it is')
    sizes = {letter: size for term, tensor in zip(letters, tensors) for letter, size in zip(term, tensor.shape)}
    size: Any = math.prod(sizes.values())
    order = dict.fromkeys(filter(str.isalpha, equation))
    alike = equation.translate({ord(letter): chr(ord('a') + place) for place, letter in enumerate(order)})
    if alike in ('abc,abd->acd', 'abc,adc->adb'):
        return size
    return Rounded(size, 2 if set(sizes) - set(result) else 1)


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
    torch.einsum: _einsum,
    F.batch_norm: _batch_norm(3),
    torch.batch_norm: _batch_norm(1),
    **dict.fromkeys((F.group_norm, torch.group_norm, F.layer_norm, torch.layer_norm), _norm(2)),
    F.instance_norm: _norm(3),
    torch.instance_norm: _norm(1),
    F.interpolate: _interpolate,
    F.adaptive_avg_pool2d: lambda operand, output: _size(operand(0, 'input')),
    F.grid_sample: lambda operand, output: 4 * _size(output),
}

# Functions of Python that compute such operations inside.
TRANSPARENT = (F.multi_head_attention_forward,)


def call_inside(mode: TorchFunctionMode, func: Any, args: Any, kwargs: Any) -> Any:
    """Call a function of :data:`TRANSPARENT` so that a mode sees what it computes inside.

    Args:
        mode: the mode, which is not active now.
        func: the function.
        args: its positional arguments.
        kwargs: its keyword arguments.
    """
    functional: Any = F
    original = functional.has_torch_function
    functional.has_torch_function = lambda tensors: False
    try:
        with mode:
            return func(*args, **kwargs)
    finally:
        functional.has_torch_function = original


# Functions whose output has the shape of their first operand, always or if both operands are alike. Torch takes long
# to find that out on meta tensors.
SAME_SHAPE = (F.batch_norm, F.group_norm, F.layer_norm, F.instance_norm, F.relu)

SAME_SHAPE_OF_TWO = (Tensor.add, torch.add, Tensor.mul, torch.mul)


def on_shapes(func: Any, args: tuple, kwargs: dict[str, Any]) -> Any:
    """Call a torch function, quickly on meta tensors."""
    if not args or not isinstance(args[0], Tensor) or not args[0].is_meta:
        return func(*args, **kwargs)
    if func in SAME_SHAPE and not kwargs.get('inplace') or func in SAME_SHAPE_OF_TWO and not kwargs and all(
            isinstance(arg, Tensor) and (arg.shape, arg.dtype) == (args[0].shape, args[0].dtype) for arg in args):
        return args[0].new_empty(args[0].shape)
    return func(*args, **kwargs)


class OperationCounter(TorchFunctionMode):
    """While it is active, counts the operations on tensors that follow from an input.

    Operations on parameters alone, such as transforming a kernel, do not exist in the plain network that is cut out
    of a dynamic one, and are not counted.

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
        if func in TRANSPARENT:
            return call_inside(self, func, args, kwargs)
        output = on_shapes(func, args, kwargs)
        if not any(id(tensor) in self._data for tensor in tensors_in((args, kwargs))):
            return output
        self._data.update((id(tensor), tensor) for tensor in tensors_in(output))
        amounts = amounts_of(func, args, kwargs, output)
        if amounts is not None:
            self._add(*amounts)
        return output


class NeededCounter(TorchFunctionMode):
    """While it is active, writes down all operations; those that the outputs need can be counted afterwards.

    Args:
        group: whom an operation belongs to that is called now.

    Attributes:
        operations: what was written down.

    Raises:
        ConfigError: for an operation that cannot be counted.
    """

    def __init__(self, group: Callable[[], str]) -> None:
        super().__init__()
        self._group, self.operations = group, Operations()

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        if func in TRANSPARENT:
            return call_inside(self, func, args, kwargs)
        output = on_shapes(func, args, kwargs)
        amounts = amounts_of(func, args, kwargs, output)
        self.operations.called(func, args, kwargs, output, None if amounts is None else (self._group(), *amounts))
        return output

    def counted(self, outputs: Any) -> list[tuple[str, int, int]]:
        """Group, MACs and operations (MACs included) of each operation that the outputs need.

        Args:
            outputs: what the forward pass returned.
        """
        return [payload for payload, _ in self.operations.needed(outputs)]


def amounts_of(func: Any, args: Any, kwargs: Any, output: Any) -> tuple[int, int] | None:
    """MACs and operations (MACs included) of a call; ``None`` for one that does not count.

    Args:
        func: the function of torch.
        args: its positional arguments.
        kwargs: its keyword arguments.
        output: what it returned.

    Raises:
        ConfigError: for an operation that cannot be counted.
    """
    count = MACS.get(func) or OTHERS.get(func)
    if count is None:
        return None
    amount = count(lambda index, name: args[index] if index < len(args) else kwargs.get(name), output)
    if isinstance(amount, Rounded):
        amount = amount.value(amount.size)
    return (amount if func in MACS else 0), amount
