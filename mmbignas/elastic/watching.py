"""What is seen of a network's modules while it computes, beside operations."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterator
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
    changed: list[tuple[nn.Module, Any]] = []
    for path, module in model.named_modules():
        # Not hooks: detectors call the forward of their heads themselves.
        changed.append((module, vars(module).get('forward')))
        module.forward = _watched(path, module, module.forward, tracer, watched)
    try:
        yield
    finally:
        for module, forward in changed:
            del module.forward
            if forward is not None:
                module.forward = forward


def _watched(path: str, module: nn.Module, forward: Callable[..., Any], tracer: Tracer,
             watched: Watched | None) -> Callable[..., Any]:
    """A module's forward that tells the tracer and writes down what goes in and out."""

    def call(*args: Any, **kwargs: Any) -> Any:
        tracer.enter(path)
        output = forward(*args, **kwargs)  # after an exception the path stays where it was raised
        if watched is not None:
            watched.attributes[path].update(followed(tracer, module, (list(args), kwargs), output))
            given = [*args, *kwargs.values()]
            entered = given[0] if given and isinstance(given[0], Tensor) else None
            left = output if isinstance(output, Tensor) else None
            residual = entered is not None and left is not None and entered is not left and (
                entered.shape == left.shape) and tracer.holds(left, entered)
            watched.calls.append(Called(path, entered, left, residual))
        tracer.leave()
        return output

    return call
