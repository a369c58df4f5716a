"""Sums, means, extremes and the like along axes."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmbignas.elastic.axes import Fix
from mmbignas.elastic.rules.elementwise import broadcast
from mmbignas.elastic.rules.registry import rule
from mmbignas.elastic.tracer import Axes, Call


def _dims(dim: Any, count: int) -> set[int]:
    if dim is None or isinstance(dim, Sequence) and not dim:
        return set(range(count))
    return {each % max(count, 1) for each in (dim if isinstance(dim, Sequence) else [dim])}


def _argument(call: Call, name: str, default: Any = None) -> Any:
    try:
        return call[name]
    except KeyError:
        return default


def reduced(call: Call) -> Axes:
    """The axes that remain after a reduction."""
    axes = call.axes(call.inputs()[0])
    dims = _dims(_argument(call, 'dim'), len(axes))
    if _argument(call, 'keepdim', False):
        return [Fix(1) if dim in dims else node for dim, node in enumerate(axes)]
    return [node for dim, node in enumerate(axes) if dim not in dims]


@rule('aten::sum', 'aten::mean', 'aten::amax', 'aten::amin', 'aten::prod', 'aten::logsumexp', 'aten::std', 'aten::var',
      'aten::linalg_vector_norm', 'aten::norm', 'aten::any', 'aten::all', 'aten::nansum', 'aten::count_nonzero')
def reduce(call: Call) -> Axes:
    """Reductions that do not go by the order of what they reduce."""
    return reduced(call)


@rule('aten::std_mean', 'aten::var_mean', 'aten::aminmax')
def reduce_to_two(call: Call) -> list[Axes]:
    """Two reductions at once."""
    return [reduced(call)] * 2


@rule('aten::max', 'aten::min', 'aten::median', 'aten::mode')
def extreme(call: Call) -> Axes | list[Axes]:
    """The greatest of all, of two tensors, or along an axis, with its place, which goes by the order."""
    if isinstance(call.output, (tuple, list)):
        axes = call.axes(call['self'])
        call.freeze(*(axes[dim] for dim in _dims(call['dim'], len(axes))))
        return [reduced(call)] * 2
    if len(call.inputs()) == 2:
        return broadcast(call, call.inputs())
    return []


@rule('aten::argmax', 'aten::argmin')
def place(call: Call) -> Axes:
    """A place goes by the order."""
    axes = call.axes(call['self'])
    call.freeze(*(axes[dim] for dim in _dims(call['dim'], len(axes))))
    return reduced(call)


@rule('aten::_softmax', 'aten::_log_softmax', 'aten::softmax', 'aten::_safe_softmax', 'aten::log_softmax')
def softmax(call: Call) -> Axes:
    """Divided by a sum along an axis."""
    return call.axes(call['self'])


@rule('aten::cumsum', 'aten::cumprod', 'aten::flip', 'aten::roll', 'aten::sort', 'aten::argsort', 'aten::topk')
def by_order(call: Call) -> Axes | list[Axes]:
    """What goes by the order along an axis."""
    axes = call.axes(call['self'])
    dim = _argument(call, 'dim', _argument(call, 'dims'))
    call.freeze(*(axes[each] for each in _dims(dim, len(axes))))
    if isinstance(call.output, (tuple, list)):
        dims = _dims(dim, len(axes))
        return [[Fix(made.shape[each]) if each in dims else node for each, node in enumerate(axes)]
                for made in call.output]
    return axes
