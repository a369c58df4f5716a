"""Looking up and writing by index."""
from __future__ import annotations

import torch

from mmbignas.elastic.axes import Fix
from mmbignas.elastic.rules.elementwise import broadcast
from mmbignas.elastic.rules.registry import rule
from mmbignas.elastic.tracer import Axes, Call

MASKS = (torch.bool, torch.uint8)


@rule('aten::embedding')
def embedding(call: Call) -> Axes:
    """Rows of a table."""
    rows, channels = call.axes(call['weight'])
    call.freeze(rows)
    if call.is_data(call['weight']):
        return [*call.axes(call['indices']), channels]
    call.produces(channels)
    return [*call.axes(call['indices']), channels]


@rule('aten::index_select')
def index_select(call: Call) -> Axes:
    """Some places of an axis."""
    axes = list(call.axes(call['self']))
    dim = call['dim'] % len(axes)
    call.freeze(axes[dim])
    axes[dim] = Fix(call.output.shape[dim])
    return axes


@rule('aten::index', 'aten::_unsafe_index')
def index(call: Call) -> Axes | None:
    """Places by tensors of numbers or truth values; axes without such a tensor go on."""
    axes, indices = call.axes(call['self']), list(call['indices'])
    indices += [None] * (len(axes) - len(indices))
    if any(each is not None and each.dtype in MASKS and each.dim() > 1 for each in indices):
        return _by_mask(call)
    used = [dim for dim, each in enumerate(indices) if each is not None]
    call.freeze(*(axes[dim] for dim in used))
    new = call.output.dim() - (len(axes) - len(used))
    made: Axes = []
    for dim, node in enumerate(axes):
        if dim not in used:
            made.append(node)
    # Numbers that stand side by side make their axes in their place, others in front.
    place = used[0] if used == list(range(used[0], used[-1] + 1)) else 0
    rest = [Fix(size) for size in call.output.shape[place:place + new]]
    return [*made[:place], *rest, *made[place:]]


def _by_mask(call: Call) -> Axes | None:
    """One mask over the first axes makes one axis of these."""
    axes, indices = call.axes(call['self']), call['indices']
    mask = indices[0]
    if len([each for each in indices if each is not None]) != 1 or mask is None:
        call.freeze(*axes)
        return None
    call.freeze(*axes[:mask.dim()])
    return [Fix(call.output.shape[0]), *axes[mask.dim():]]


@rule('aten::gather')
def gather(call: Call) -> Axes:
    """Places along one axis; the others go with those of the index."""
    axes, own = call.axes(call['self']), call.axes(call['index'])
    dim = call['dim'] % max(len(axes), 1)
    for each, (one, other) in enumerate(zip(axes, own)):
        if each == dim or one.size != other.size:
            call.freeze(one)
        else:
            call.unify(one, other)
    return own


@rule('aten::index_put_', 'aten::index_put', 'aten::_index_put_impl_', 'aten::scatter', 'aten::scatter_',
      'aten::scatter_add', 'aten::scatter_add_', 'aten::index_add', 'aten::index_add_', 'aten::masked_select',
      'aten::masked_scatter', 'aten::masked_scatter_')
def write(call: Call) -> Axes | None:
    """Writing at some places; trailing axes that value and target share go together."""
    target = call.inputs()[0]
    axes = call.axes(target)
    if call.name.startswith('aten::index_put') or call.name == 'aten::_index_put_impl_':
        indices = [each for each in call['indices'] if each is not None]
        leading = sum(each.dim() if each.dtype in MASKS else 1 for each in indices)
        if len(indices) == len(call['indices']):
            call.freeze(*axes[:leading])
            for one, other in zip(reversed(axes[leading:]), reversed(call.axes(call['values']))):
                if other.size == one.size:
                    call.unify(one, other)
            return axes
    for tensor in call.inputs():
        call.freeze(*call.axes(tensor))
    return axes if call.output.shape == target.shape else None


@rule('aten::masked_fill', 'aten::masked_fill_')
def masked_fill(call: Call) -> Axes:
    """One value where a mask says so."""
    return broadcast(call, [call['self'], call['mask']])


@rule('aten::nonzero', 'aten::unique', 'aten::_unique2', 'aten::bincount', 'aten::histc', 'aten::one_hot')
def found(call: Call) -> None:
    """What goes by the values alone."""
    for tensor in call.inputs():
        call.freeze(*call.axes(tensor))
