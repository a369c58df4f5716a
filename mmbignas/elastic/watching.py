"""What is seen of a network's modules while it computes, beside operations."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor, nn

from mmbignas.elastic.attributes import followed
from mmbignas.elastic.axes import Node
from mmbignas.elastic.tracer import Tracer


@dataclass
class Called:
    """A module that was called.

    Args:
        path: of the module.
        entered: the tensor that it was given first.
        left: the tensor that it returned; ``None`` for several.
        residual: whether what it returned still holds what it was given.
    """

    path: str
    entered: Tensor | None
    left: Tensor | None
    residual: bool


@dataclass
class Watched:
    """What was seen of modules beside operations.

    Args:
        calls: modules that were called, in the order of their return.
        attributes: path of a module -> attributes that follow an axis.
    """

    calls: list[Called] = field(default_factory=list)
    attributes: dict[str, dict[str, Node]] = field(default_factory=lambda: defaultdict(dict))


@contextmanager
def watching(model: nn.Module, tracer: Tracer, watched: Watched | None = None) -> Iterator[None]:
    """Within the context, the tracer knows which module is being computed.

    Args:
        model: the network.
        tracer: the tracer.
        watched: where to write down what goes in and out, if anywhere.
    """
    handles = []

    def enter(path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any) -> None:
            tracer.enter(path)
        return hook

    def leave(path: str) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            if watched is None:
                tracer.leave()
                return
            watched.attributes[path].update(followed(tracer, module, (list(args), kwargs), output))
            tracer.leave()
            given = [*args, *kwargs.values()]
            entered = given[0] if given and isinstance(given[0], Tensor) else None
            left = output if isinstance(output, Tensor) else None
            residual = entered is not None and left is not None and entered is not left and (
                entered.shape == left.shape) and tracer.holds(left, entered)
            watched.calls.append(Called(path, entered, left, residual))
        return hook

    for path, module in model.named_modules():
        handles.append(module.register_forward_pre_hook(enter(path), prepend=True, with_kwargs=True))
        handles.append(module.register_forward_hook(leave(path), with_kwargs=True))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
