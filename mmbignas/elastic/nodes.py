"""What an axis of a tensor consists of, and what remains of it when groups are narrowed.

Every axis of every tensor is described by a node:

- :class:`Fix`: positions that always stay;
- :class:`Atom`: a channel group, whose positions may be dropped. It can be *bound* to another node, and is that node
  from then on, wherever it occurs;
- :class:`Sum`: a concatenation;
- :class:`Prod`: outer x inner (x ...), what reshaping ``(outer, inner)`` into one axis gives.

:func:`positions` answers which positions of an axis remain. Nothing here knows of networks or imports torch.
"""
from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np


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
