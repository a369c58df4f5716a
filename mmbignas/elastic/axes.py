"""The algebra of axes: which positions of one axis belong to which of another.

:func:`unify` says that two axes have the same positions, as the two sides of an addition do. It binds atoms, aligns
concatenations by splitting atoms at the boundaries and products factor by factor. What cannot be aligned is frozen.
:func:`split`, :func:`factor` and :func:`divide` cut an axis, as chunks and views do.
"""
from __future__ import annotations

import math
from collections.abc import Sequence

from mmbignas.elastic.nodes import Atom, Fix, Node, Prod, Sum, atoms, freeze, normal, positions, width

__all__ = ['Atom', 'Fix', 'Node', 'Prod', 'Sum', 'atoms', 'divide', 'factor', 'freeze', 'normal', 'positions', 'split',
           'unify', 'width']

UNALIGNED = 'axes that cannot be aligned'


class _Unaligned(Exception):
    """Two axes have no common description."""


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
