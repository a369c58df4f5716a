"""The algebra of axes: which positions of a tensor's axis belong to which channel group.

Every axis of every tensor is described by a node:

- :class:`Fix`: positions that always stay;
- :class:`Atom`: a channel group, whose positions may be dropped. It can be *bound* to another node, and is that node
  from then on, wherever it occurs;
- :class:`Sum`: a concatenation;
- :class:`Prod`: outer x inner (x ...), what reshaping ``(outer, inner)`` into one axis gives.

:func:`unify` says that two axes have the same positions, as the two sides of an addition do. It binds atoms, aligns
concatenations by splitting atoms at the boundaries and products factor by factor. What cannot be aligned is frozen.
:func:`positions` answers which positions of an axis remain when groups are narrowed.

Nothing here knows of networks or imports torch.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

__all__ = ['Atom', 'Fix', 'Node', 'Prod', 'Sum', 'atoms', 'divide', 'factor', 'freeze', 'normal', 'positions', 'split',
           'unify', 'width']

UNALIGNED = 'axes that cannot be aligned'


class Node:
    """An axis, or a part of one.

    Attributes:
        size: number of positions.
    """

    size: int

    def __deepcopy__(self, memo: Any) -> Node:
        return self  # which atom it is counts


class Fix(Node):
    """Positions that are always kept.

    Args:
        size: how many.
        reason: why, for people; '' where nothing was to be expected.
    """

    def __init__(self, size: int, reason: str = '') -> None:
        self.size, self.reason = size, reason

    def __repr__(self) -> str:
        return f'{self.size}'


class Atom(Node):
    """A channel group.

    Args:
        size: number of positions when nothing is dropped.
        name: for people.

    Attributes:
        bound: the node that the atom turned out to be, if any.
    """

    def __init__(self, size: int, name: str = '') -> None:
        self.size, self.name = size, name
        self.bound: Node | None = None

    def __repr__(self) -> str:
        return f'{self.name or "?"}:{self.size}' if self.bound is None else repr(self.bound)


class Sum(Node):
    """A concatenation of ``parts``."""

    def __init__(self, parts: Sequence[Node]) -> None:
        self.parts = tuple(parts)
        self.size = sum(part.size for part in self.parts)

    def __repr__(self) -> str:
        return '(' + ' + '.join(map(repr, self.parts)) + ')'


class Prod(Node):
    """``factors`` in row-major order: the last one varies fastest."""

    def __init__(self, factors: Sequence[Node]) -> None:
        self.factors = tuple(factors)
        self.size = math.prod(factor.size for factor in self.factors)

    def __repr__(self) -> str:
        return '[' + ' x '.join(map(repr, self.factors)) + ']'


class _Unaligned(Exception):
    """Two axes have no common description."""


def normal(node: Node) -> Node:
    """The node with bound atoms followed, nested sums and products flattened, and neighbouring ``Fix`` joined.

    A product whose outermost factor is a concatenation becomes a concatenation of products.
    """
    if isinstance(node, Atom):
        if node.bound is not None:
            node.bound = normal(node.bound)
            return node.bound
        return node
    if isinstance(node, Sum):
        return _joined(node.parts)
    if isinstance(node, Prod):
        return _multiplied(node.factors)
    return node


def _joined(parts: Sequence[Node]) -> Node:
    flat: list[Node] = []
    for part in map(normal, parts):
        for own in part.parts if isinstance(part, Sum) else (part,):
            last = flat[-1] if flat else None
            if isinstance(own, Fix) and isinstance(last, Fix):
                flat[-1] = Fix(last.size + own.size, last.reason or own.reason)
            elif own.size:
                flat.append(own)
    if not flat:
        return Fix(0)
    return flat[0] if len(flat) == 1 else Sum(flat)


def _multiplied(factors: Sequence[Node]) -> Node:
    flat: list[Node] = []
    for node in map(normal, factors):
        for own in node.factors if isinstance(node, Prod) else (node,):
            last = flat[-1] if flat else None
            if isinstance(own, Fix) and isinstance(last, Fix):
                flat[-1] = Fix(last.size * own.size, last.reason or own.reason)
            elif own.size != 1:
                flat.append(own)
    if not flat:
        return Fix(1)
    if len(flat) == 1:
        return flat[0]
    if isinstance(flat[0], Sum):
        return _joined([Prod((part, *flat[1:])) for part in flat[0].parts])
    return Prod(flat)


def atoms(node: Node) -> Iterator[Atom]:
    """The free atoms of a node, from first to last; an atom that occurs several times comes several times."""
    node = normal(node)
    if isinstance(node, Atom):
        yield node
    elif isinstance(node, (Sum, Prod)):
        for part in node.parts if isinstance(node, Sum) else node.factors:
            yield from atoms(part)


def freeze(node: Node, reason: str) -> None:
    """Let all positions of a node stay from now on.

    Args:
        node: where.
        reason: why, for people.
    """
    for atom in list(atoms(node)):
        atom.bound = Fix(atom.size, reason)


def unify(first: Node, second: Node, reason: str = UNALIGNED) -> None:
    """Say that two axes have the same positions from now on.

    Args:
        first: an axis. Both are frozen if they have no common description; what is aligned with a part that is fixed
            is fixed too.
        second: the other one.
        reason: what to write down as the reason where something gets fixed that no older reason explains.
    """
    first, second = normal(first), normal(second)
    if first is second:
        return
    if first.size != second.size:
        freeze(first, reason)
        freeze(second, reason)
        return
    for one, other in ((first, second), (second, first)):
        if isinstance(one, Fix):
            freeze(other, one.reason or reason)
            return
    for one, other in ((first, second), (second, first)):
        if isinstance(one, Atom):
            one.bound = other
            return
    try:
        if isinstance(first, Sum) or isinstance(second, Sum):
            _align_sums(first, second, reason)
        else:
            _align_products(first, second, reason)
    except _Unaligned:
        freeze(first, reason)
        freeze(second, reason)


def _parts(node: Node) -> list[Node]:
    node = normal(node)
    return list(node.parts) if isinstance(node, Sum) else [node]


def _align_sums(first: Node, second: Node, reason: str) -> None:
    """Cut both sides at all boundaries of either, and unify the pieces."""
    left, right = _parts(first), _parts(second)
    while left and right:
        # What was done to the pieces before may have divided these.
        left[:1], right[:1] = _parts(left[0]), _parts(right[0])
        size = min(left[0].size, right[0].size)
        for side in (left, right):
            if side[0].size > size:
                side[:1] = _split(side[0], size)
        unify(left.pop(0), right.pop(0), reason)


def _align_products(first: Node, second: Node, reason: str) -> None:
    """Divide both sides into factors of equal sizes, from the outermost on, and unify these."""
    left, right = _factors(first), _factors(second)
    while left and right:
        left[:1], right[:1] = _factors(left[0]), _factors(right[0])
        common = math.gcd(left[0].size, right[0].size)
        if common == 1:
            for rest in (*left, *right):
                freeze(rest, reason)
            return
        for side in (left, right):
            if side[0].size > common:
                side[:1] = _factor(side[0], common, reason)
        unify(left.pop(0), right.pop(0), reason)


def _factors(node: Node) -> list[Node]:
    node = normal(node)
    return list(node.factors) if isinstance(node, Prod) else [node]


def split(node: Node, size: int, reason: str = UNALIGNED) -> tuple[Node, Node]:
    """Cut an axis in two: what chunks and slices do.

    Args:
        node: the axis.
        size: of the first part.
        reason: what to write down where the cut goes through something that cannot be divided, which is then frozen.

    Returns:
        tuple: both parts; the axis is their concatenation from now on.
    """
    try:
        return _split(node, size)
    except _Unaligned:
        freeze(node, reason)
        return _split(node, size)


def _split(node: Node, size: int) -> tuple[Node, Node]:
    node = normal(node)
    if size in (0, node.size):
        return (Fix(0), node) if size == 0 else (node, Fix(0))
    if isinstance(node, Fix):
        return Fix(size, node.reason), Fix(node.size - size, node.reason)
    if isinstance(node, Atom):
        first, second = Atom(size, node.name), Atom(node.size - size, node.name)
        node.bound = Sum((first, second))
        return first, second
    if isinstance(node, Prod):
        outer, inner = node.factors[0], normal(Prod(node.factors[1:]))
        if size % inner.size == 0:
            one, other = _split(outer, size // inner.size)
            return normal(Prod((one, inner))), normal(Prod((other, inner)))
        if not isinstance(outer, Fix):
            raise _Unaligned
        node = Sum([inner] * outer.size)  # the same inner axis, several times
    assert isinstance(node, Sum)
    left: list[Node] = []
    rest = list(node.parts)
    while size >= rest[0].size:
        size -= rest[0].size
        left.append(rest.pop(0))
    if size:
        one, other = _split(rest[0], size)
        left.append(one)
        rest[0] = other
    return normal(Sum(left)), normal(Sum(rest))


def factor(node: Node, outer: int, reason: str = UNALIGNED) -> tuple[Node, Node]:
    """Reshape an axis into two: what ``view`` does.

    Args:
        node: the axis.
        outer: size of the outer axis, a divisor of the node's.
        reason: what to write down where the axis has to be frozen.

    Returns:
        tuple: outer and inner axis; the axis is their product from now on.
    """
    try:
        return _factor(node, outer, reason)
    except _Unaligned:
        freeze(node, reason)
        return _factor(node, outer, reason)


def _factor(node: Node, outer: int, reason: str) -> tuple[Node, Node]:
    node = normal(node)
    inner = node.size // outer
    if outer == 1 or inner == 1:
        return (Fix(1), node) if outer == 1 else (node, Fix(1))
    if isinstance(node, Fix):
        return Fix(outer, node.reason), Fix(inner, node.reason)
    if isinstance(node, Atom):
        first, second = Atom(outer, node.name), Atom(inner, node.name)
        node.bound = Prod((first, second))
        return first, second
    if isinstance(node, Prod):
        front, rest = node.factors[0], normal(Prod(node.factors[1:]))
        if outer % front.size == 0:
            middle, last = _factor(rest, outer // front.size, reason)
            return normal(Prod((front, middle))), last
        if front.size % outer == 0:
            one, other = _factor(front, outer, reason)
            return one, normal(Prod((other, rest)))
        common = math.gcd(front.size, outer)
        if common == 1:
            raise _Unaligned
        one, other = _factor(front, common, reason)
        remaining = Prod((other, rest))
        freeze(remaining, reason)
        return _factor(Prod((one, remaining)), outer, reason)
    assert isinstance(node, Sum)
    if all(part.size % inner == 0 for part in node.parts):
        pairs = [_factor(part, part.size // inner, reason) for part in node.parts]
        for _, other in pairs[1:]:
            unify(pairs[0][1], other, reason)
        return normal(Sum([one for one, _ in pairs])), normal(pairs[0][1])
    # The outer axis stays, and all of its rows are alike.
    rows: list[Node] = []
    whole: Node = node
    for _ in range(outer):
        row, whole = _split(whole, inner)
        rows.append(row)
    for row in rows[1:]:
        unify(rows[0], row, reason)
    return Fix(outer, reason), normal(rows[0])


def divide(node: Node, sizes: Sequence[int], reason: str = UNALIGNED) -> list[Node]:
    """Reshape an axis into axes of the given sizes, outermost first; their product is the node's size."""
    axes: list[Node] = []
    for size in sizes[:-1]:
        outer, node = factor(node, size, reason)
        axes.append(outer)
    return [*axes, node]


def positions(node: Node, kept: Mapping[Atom, np.ndarray]) -> np.ndarray:
    """Which positions of an axis remain, and in which order.

    Args:
        node: the axis.
        kept: free atoms -> their positions that remain; all of an atom that is not there.

    Returns:
        np.ndarray: indices into the full axis.
    """
    node = normal(node)
    if isinstance(node, Atom) and node in kept:
        return np.asarray(kept[node], dtype=np.int64)
    if isinstance(node, Sum):
        starts = np.cumsum([0, *(part.size for part in node.parts)])
        return np.concatenate([start + positions(part, kept) for start, part in zip(starts, node.parts)])
    if isinstance(node, Prod):
        index = np.zeros(1, dtype=np.int64)
        for own in node.factors:
            index = (index[:, None] * own.size + positions(own, kept)[None, :]).reshape(-1)
        return index
    return np.arange(node.size, dtype=np.int64)


def width(node: Node, widths: Mapping[Atom, int]) -> int:
    """How many positions of an axis remain.

    Args:
        node: the axis.
        widths: free atoms -> how many of their positions remain; all of an atom that is not there.
    """
    node = normal(node)
    if isinstance(node, Sum):
        return sum(width(part, widths) for part in node.parts)
    if isinstance(node, Prod):
        return math.prod(width(own, widths) for own in node.factors)
    return widths.get(node, node.size) if isinstance(node, Atom) else node.size
