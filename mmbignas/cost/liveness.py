"""Which operations of a forward pass its outputs need.

MMEngine's analysis passes over what has no effect: torch.jit leaves it out of the graph. Blocks that a subnet leaves
out make more of that: what was computed for such a block alone.
"""
from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from types import MethodWrapperType
from typing import Any

import torch
from torch import Tensor

from mmbignas.utils.models import tensors_in

# Run of blocks -> number of the last one that has to be in use for something to be computed.
Condition = Mapping[str, int]


def both(one: Condition, other: Condition) -> dict[str, int]:
    """What holds if two conditions hold."""
    return {run: max(one.get(run, 0), other.get(run, 0)) for run in {**one, **other}}


def either(one: Condition, other: Condition) -> dict[str, int]:
    """What holds if one of two conditions holds."""
    return {run: min(one[run], other[run]) for run in one if run in other}


class Operations:
    """Operations of a forward pass in the order in which they were called."""

    def __init__(self) -> None:
        self._calls: list[tuple[list[int], list[int], bool, Condition, Any]] = []
        self._alive: list[Any] = []  # ids stay theirs

    def called(self, func: Any, args: Any, kwargs: Any, output: Any, payload: Any = None,
               condition: Condition | None = None) -> None:
        """Write down a call.

        Args:
            func: the function of torch.
            args: its positional arguments.
            kwargs: its keyword arguments.
            output: what it returned.
            payload: what to find it by.
            condition: when it is called.
        """
        if isinstance(func, MethodWrapperType):  # reads an attribute, such as a shape
            return
        inputs, outputs = tensors_in((list(args), kwargs)), tensors_in(output)
        target = args[0] if args and isinstance(args[0], Tensor) else None
        into_view = target is not None and any(target is made for made in outputs) and target._is_view()
        if getattr(func, '__name__', '') == '__setitem__' and target is not None:
            outputs = [target]
            into_view = target._is_view()
        self._write(inputs, outputs, into_view, condition, payload)

    def passed(self, entered: Tensor, left: Any, condition: Condition | None = None) -> None:
        """Write down that a block hands on what it is given where it is left out.

        Args:
            entered: what it is given.
            left: what it returns otherwise.
            condition: when its surroundings are computed.
        """
        self._write([entered], tensors_in(left), False, condition, None)

    def _write(self, inputs: Sequence[Tensor], outputs: Sequence[Tensor], always: bool, condition: Condition | None,
               payload: Any) -> None:
        self._alive += [*inputs, *outputs]
        self._calls.append(([*map(id, inputs)], [*map(id, outputs)], always, condition or {}, payload))

    def needed(self, outputs: Any) -> list[tuple[Any, Condition]]:
        """The payloads of what is needed, each with the condition of it.

        Args:
            outputs: what the forward pass returned.
        """
        wanted: dict[int, Condition] = {id(tensor): {} for tensor in tensors_in(outputs)}
        found: list[tuple[Any, Condition]] = []
        for inputs, made, always, own, payload in reversed(self._calls):
            conditions: list[Condition] = [{}] if always else [wanted[each] for each in made if each in wanted]
            if not conditions:
                continue
            condition = both(own, _any_of(conditions))
            if payload is not None:
                found.append((payload, condition))
            for each in inputs:
                wanted[each] = either(wanted[each], condition) if each in wanted else condition
        return found[::-1]


def _any_of(conditions: Iterable[Condition]) -> Condition:
    first, *rest = conditions
    for other in rest:
        first = either(first, other)
    return first


@contextmanager
def custom_functions(called: Callable[..., None]) -> Iterator[None]:
    """Within the context, calls of ``torch.autograd.Function`` are told of, which no mode of torch sees.

    MMCV takes their ``apply`` when it is imported, so it is their ``forward`` that is watched.

    Args:
        called: called with the class, its arguments, and what it returned.
    """

    def watched(cls: Any, forward: Callable[..., Any]) -> Any:
        def call(ctx: Any, *args: Any, **kwargs: Any) -> Any:
            output = forward(ctx, *args, **kwargs)
            called(cls, args, kwargs, output)
            return output
        return staticmethod(call)

    changed = []
    for cls in _subclasses(torch.autograd.Function):
        if not cls.__module__.startswith('torch.') and isinstance(vars(cls).get('forward'), staticmethod):
            changed.append((cls, vars(cls)['forward']))
            cls.forward = watched(cls, cls.forward)
    try:
        yield
    finally:
        for cls, forward in changed:
            cls.forward = forward


def _subclasses(cls: Any) -> Iterator[Any]:
    for own in cls.__subclasses__():
        yield own
        yield from _subclasses(own)
