"""A forward pass, recorded as steps."""
from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from types import MethodWrapperType
from typing import Any, NamedTuple

import torch
from mmengine.utils import apply_to
from torch import Tensor, nn
from torch.overrides import TorchFunctionMode

from mmbignas.cost.operation_counter import OperationCounter, on_shapes
from mmbignas.cost.shadow import Shadow
from mmbignas.utils.compiled_operations import compiled_operations_on_shapes
from mmbignas.utils.models import tensors_in

Shape = tuple[int, ...]


@dataclass(frozen=True)
class Hole:
    """The place of a step's input in its arguments."""

    index: int


class Bound(nn.Module):
    """A function of tensors: a module or a torch function with all its other arguments.

    Args:
        function: what is called.
        arguments: its positional and keyword arguments, with a :class:`Hole` for each tensor.
    """

    def __init__(self, function: Callable[..., Any], arguments: tuple[tuple, dict[str, Any]]) -> None:
        super().__init__()
        self.function = function
        self.arguments = arguments

    def extra_repr(self) -> str:
        name = '' if isinstance(self.function, nn.Module) else getattr(self.function, '__name__', self.function)
        return f'{name}{self.arguments}'

    def forward(self, *tensors: Tensor) -> Any:
        """Call the function with these tensors."""
        args, kwargs = apply_to(self.arguments, lambda item: isinstance(item, Hole), lambda hole: tensors[hole.index])
        return self.function(*args, **kwargs)


class Entry(NamedTuple):
    """What a step costs for some settings and input shapes, and the shapes of its outputs."""

    macs: int
    ops: int
    params: int
    outputs: tuple[Any, ...]


class Step:
    """One call of a unit of the model, or of a torch function between units.

    Args:
        path: of the unit; for a function, the path of the module that calls it, and the function's name.
        bound: what is computed.
        unit: the unit; ``None`` for a function.
        group: the child of the model that it belongs to.
        inputs, outputs: slots of the tensors.
        dtypes: of the inputs.
        counts_parameters: whether this is the unit's first call.
    """

    def __init__(self, path: str, bound: Bound, unit: nn.Module | None, group: str, inputs: list[int],
                 outputs: list[int], dtypes: list[torch.dtype], counts_parameters: bool) -> None:
        self.path, self.bound, self.unit, self.group = path, bound, unit, group
        self.inputs, self.outputs, self.dtypes = tuple(inputs), tuple(outputs), dtypes
        self.counts_parameters = counts_parameters

    @torch.no_grad()
    def measure(self, shadow: Shadow, shapes: Sequence[Shape]) -> Entry:
        """Run the step on inputs of these shapes; its unit must have its settings."""
        macs = ops = 0

        def add(own_macs: int, own_ops: int) -> None:
            nonlocal macs, ops
            macs += own_macs
            ops += own_ops

        tensors = [torch.empty(shape, dtype=dtype, device='meta') for shape, dtype in zip(shapes, self.dtypes)]
        with OperationCounter(tensors, add), compiled_operations_on_shapes():
            outputs = tensors_in(self.bound(*tensors))
        params = shadow.parameters(self.unit) if self.counts_parameters and self.unit is not None else 0
        return Entry(macs, ops, params, tuple(tuple(output.shape) for output in outputs))


class Recorder(TorchFunctionMode):
    """While it is active, records a forward pass as steps.

    Args:
        shadow: the model that will be run.
        image: its input, which becomes slot 0.

    Attributes:
        steps: the steps so far.
        slots: number of tensors so far.
    """

    def __init__(self, shadow: Shadow, image: Tensor) -> None:
        super().__init__()
        self._shadow = shadow
        self._tensors = [image]  # kept alive, so that ids stay theirs
        self._slots = {id(image): 0}
        self._called: set[nn.Module | None] = set()
        self._inside_unit = False
        self._names: Counter[str] = Counter()
        self.steps: list[Step] = []

    @property
    def slots(self) -> int:
        return len(self._tensors)

    def __enter__(self) -> Recorder:
        self._shadow.watcher = self._call_unit
        return super().__enter__()

    def __exit__(self, *exception: Any) -> None:
        self._shadow.watcher = None
        super().__exit__(*exception)

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if isinstance(func, MethodWrapperType):  # reads an attribute, such as a shape
            return func(*args)
        kwargs = kwargs or {}

        def forward(*args: Any, **kwargs: Any) -> Any:
            return on_shapes(func, args, kwargs)

        if self._inside_unit:
            return forward(*args, **kwargs)
        name = f'{self._shadow.scope[-1]}.{getattr(func, "__name__", "function")}'
        self._names[name] += 1
        name = f'{name}{self._names[name]}' if self._names[name] > 1 else name
        return self._call(name, forward, func, None, args, kwargs)

    def _call_unit(self, path: str, unit: nn.Module, forward: Callable[..., Any], args: tuple, kwargs: dict) -> Any:
        self._inside_unit = True
        try:
            return self._call(path, forward, unit, unit, args, kwargs)
        finally:
            self._inside_unit = False

    def _call(self, path: str, forward: Callable[..., Any], function: Any, unit: nn.Module | None, args: tuple,
              kwargs: dict) -> Any:
        """Call ``forward`` and record it, unless it makes no tensors from tensors that follow from the image."""
        known = [tensor for tensor in tensors_in((args, kwargs)) if id(tensor) in self._slots]
        inputs = [self._slots[id(tensor)] for tensor in known]  # before the call, which may be in place
        numbers = iter(range(len(known)))
        arguments = apply_to((args, kwargs), lambda item: isinstance(item, Tensor) and id(item) in self._slots,
                             lambda _: Hole(next(numbers)))
        output = forward(*args, **kwargs)
        made = tensors_in(output)
        if known and made:
            outputs = list(range(self.slots, self.slots + len(made)))
            self._tensors += made
            self._slots.update((id(tensor), slot) for tensor, slot in zip(made, outputs))
            first = unit is not None and unit not in self._called
            self._called.add(unit)
            self.steps.append(Step(path, Bound(function, arguments), unit, self._shadow.group, inputs, outputs,
                                   [tensor.dtype for tensor in known], first))
        return output
