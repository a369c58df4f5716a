"""Reshaping, permuting, cutting and joining."""
from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch

from mmbignas.elastic.axes import Fix, Node, Prod, Sum, divide, split
from mmbignas.elastic.rules.registry import rule
from mmbignas.elastic.tracer import Axes, Call


def _common(old: Sequence[int], new: Sequence[int]) -> Iterator[tuple[int, int, int, int]]:
    """The smallest ranges of axes of equal size in two shapes of the same number of elements."""
    i = j = 0
    while i < len(old) or j < len(new):
        start, begin = i, j
        left = right = 1
        if i < len(old):
            left, i = old[i], i + 1
        if j < len(new):
            right, j = new[j], j + 1
        while left != right:
            if left < right and i < len(old):
                left, i = left * old[i], i + 1
            elif j < len(new):
                right, j = right * new[j], j + 1
            else:
                left, i = left * old[i], i + 1
        yield start, i, begin, j


@rule('aten::view', 'aten::_unsafe_view', 'aten::reshape', 'aten::_reshape_alias', 'aten::view_copy',
      'aten::_reshape_copy')
def view(call: Call) -> Axes | None:
    """Axes that are joined become a product, and an axis that is divided is one."""
    axes, shape = call.axes(call['self']), list(call.output.shape)
    if call['self'].numel() == 0:
        if [node.size for node in axes] == shape:
            return axes
        call.freeze(*axes)
        return None
    result: Axes = []
    # Axes of size 1 would hide which ranges belong together.
    old = [node for node in axes if node.size > 1]
    sizes = [size for size in shape if size > 1]
    for start, end, begin, stop in _common([node.size for node in old], sizes):
        result += divide(Prod(old[start:end]), sizes[begin:stop], call.reason)
    rest = iter(result)
    return [next(rest) if size > 1 else Fix(1) for size in shape]


@rule('aten::as_strided_', 'aten::as_strided')
def as_strided(call: Call) -> Axes | None:
    """Another layout in memory, as pooling to a single pixel gives; anything but the same axes is frozen."""
    axes, made = call.axes(call['self']), call.output
    expected = torch.empty(made.shape, device='meta').stride()
    alike = all(own == other for own, other, size in zip(made.stride(), expected, made.shape) if size > 1)
    if [node.size for node in axes] == list(made.shape) and alike and made.storage_offset() == 0:
        return axes
    call.freeze(*axes)
    return None


@rule('aten::permute')
def permute(call: Call) -> Axes:
    """Axes in another order."""
    axes = call.axes(call['self'])
    return [axes[dim] for dim in call['dims']]


@rule('aten::transpose', 'aten::transpose_')
def transpose(call: Call) -> Axes:
    """Two axes change places."""
    axes = list(call.axes(call['self']))
    one, other = call['dim0'], call['dim1']
    axes[one], axes[other] = axes[other], axes[one]
    return axes


@rule('aten::t', 'aten::numpy_T', 'aten::adjoint')
def transposed(call: Call) -> Axes:
    """All axes in reverse order."""
    return call.axes(call['self'])[::-1]


@rule('aten::unsqueeze', 'aten::unsqueeze_')
def unsqueeze(call: Call) -> Axes:
    """One more axis of size 1."""
    axes = list(call.axes(call['self']))
    axes.insert(call['dim'] % (len(axes) + 1), Fix(1))
    return axes


@rule('aten::squeeze', 'aten::squeeze_')
def squeeze(call: Call) -> Axes:
    """Without axes of size 1."""
    axes = call.axes(call['self'])
    try:
        dim = call['dim']
    except KeyError:
        dim = None
    dims = range(len(axes)) if dim is None else [dim] if isinstance(dim, int) else dim
    drop = {each % max(len(axes), 1) for each in dims}
    return [node for each, node in enumerate(axes) if not (each in drop and node.size == 1)]


@rule('aten::expand', 'aten::broadcast_to')
def expand(call: Call) -> Axes:
    """Axes of size 1 repeated."""
    axes, shape = call.axes(call['self']), call.output.shape
    new = len(shape) - len(axes)
    return [axes[dim - new] if dim >= new and axes[dim - new].size == size else Fix(size)
            for dim, size in enumerate(shape)]


@rule('aten::repeat')
def repeat(call: Call) -> Axes:
    """Each axis several times."""
    axes, counts = call.axes(call['self']), call['repeats']
    padded: list[Node] = [*[Fix(1)] * (len(counts) - len(axes)), *axes]
    return [Prod((Fix(count), node)) for count, node in zip(counts, padded)]


@rule('aten::cat', 'aten::concatenate')
def cat(call: Call) -> Axes | None:
    """One after the other along an axis; the others go together."""
    tensors = [tensor for tensor in call['tensors'] if tensor.dim() == call.output.dim()]
    every = [call.axes(tensor) for tensor in tensors]
    dim = call['dim'] % call.output.dim()
    for axes in every[1:]:
        for each, (one, other) in enumerate(zip(every[0], axes)):
            if each != dim:
                call.unify(one, other)
    return [Sum([axes[dim] for axes in every]) if each == dim else node for each, node in enumerate(every[0])]


@rule('aten::stack')
def stack(call: Call) -> Axes:
    """One more axis, with a place per tensor."""
    every = [call.axes(tensor) for tensor in call['tensors']]
    for axes in every[1:]:
        for one, other in zip(every[0], axes):
            call.unify(one, other)
    result = list(every[0])
    result.insert(call['dim'] % call.output.dim(), Fix(len(every)))
    return result


@rule('aten::unbind')
def unbind(call: Call) -> list[Axes]:
    """A tensor per place of an axis."""
    axes = list(call.axes(call['self']))
    gone = axes.pop(call['dim'])
    call.freeze(gone)
    return [axes] * len(call.output)


@rule('aten::select')
def select(call: Call) -> Axes:
    """One place of an axis."""
    axes = list(call.axes(call['self']))
    gone = axes.pop(call['dim'])
    call.freeze(gone)
    return axes


def pieces(call: Call, node: Node, sizes: Sequence[int], tied: bool = False) -> list[Node]:
    """An axis cut into parts, of which equal ones stay equally wide if ``tied``."""
    parts: list[Node] = []
    rest = node
    for size in sizes[:-1]:
        part, rest = split(rest, size, call.reason)
        parts.append(part)
    parts.append(rest)
    if tied and len(set(sizes)) == 1:
        for part in parts[1:]:
            call.unify(parts[0], part)
    return parts


@rule('aten::split', 'aten::split_with_sizes', 'aten::unsafe_split', 'aten::unsafe_split_with_sizes', 'aten::chunk',
      'aten::unsafe_chunk', 'aten::split_copy', 'aten::split_with_sizes_copy')
def cut(call: Call) -> list[Axes]:
    """Parts of an axis; equal parts stay equally wide, since whoever cuts computes the places from the whole."""
    axes, dim = call.axes(call['self']), call['dim']
    dim %= len(axes)
    parts = pieces(call, axes[dim], [made.shape[dim] for made in call.output], tied=True)
    return [[*axes[:dim], part, *axes[dim + 1:]] for part in parts]


@rule('aten::slice', 'aten::narrow', 'aten::slice_copy')
def slice_(call: Call) -> Axes:
    """A part of an axis; the first and the second half stay equally wide."""
    axes = list(call.axes(call['self']))
    dim = call['dim'] % len(axes)
    size, taken = axes[dim].size, call.output.shape[dim]
    if taken == size:
        return axes
    start = min(call['start'] or 0, size)
    start += size if start < 0 else 0
    if call.name != 'aten::narrow' and call['step'] != 1:
        call.freeze(axes[dim])
        axes[dim] = call.fixed(taken)
        return axes
    sizes = [start, taken, size - start - taken]
    halves = sorted(sizes) == [0, size // 2, size - size // 2] and size % 2 == 0
    parts = pieces(call, axes[dim], [part for part in sizes if part], tied=halves)
    axes[dim] = parts[1 if start and taken else 0] if taken else Fix(0)
    return axes


@rule('aten::diagonal')
def diagonal(call: Call) -> Axes:
    """Two axes become one."""
    axes = list(call.axes(call['self']))
    one, other = call['dim1'] % len(axes), call['dim2'] % len(axes)
    call.freeze(axes[one], axes[other])
    return [*(node for dim, node in enumerate(axes) if dim not in (one, other)), Fix(call.output.shape[-1])]


@rule('aten::repeat_interleave')
def repeat_interleave(call: Call) -> Axes | None:
    """Each place several times."""
    axes = list(call.axes(call['self']))
    if call['dim'] is None or not isinstance(call['repeats'], int):
        call.freeze(*axes)
        return None
    dim = call['dim'] % len(axes)
    axes[dim] = Prod((axes[dim], Fix(call['repeats'])))
    return axes
