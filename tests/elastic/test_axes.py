"""The algebra of axes, against numpy: tensors of labels take the way of the axes, and the labels say what is kept."""
from __future__ import annotations

import copy
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbignas.elastic.axes import Atom, Fix, Prod, Sum, atoms, divide, factor, freeze, normal, positions, split, unify
from mmbignas.elastic.axes import width as width_of

SIZES = st.integers(1, 12)


def kept_of(nodes, draw) -> dict[Atom, np.ndarray]:
    """Positions to keep of every free atom, in any order."""
    found = {}
    for node in nodes:
        for atom in atoms(node):
            if atom not in found:
                order = draw(st.permutations(range(atom.size)))
                found[atom] = np.array(order[:draw(st.integers(1, atom.size))])
    return found


@st.composite
def trees(draw, depth: int = 3, size: int = 4):
    """A node with free atoms, some of which occur several times."""
    pool = [Atom(draw(st.integers(1, size)), name) for name in 'abc']

    def build(level: int):
        kind = draw(st.sampled_from(['atom', 'fix', 'sum', 'prod'] if level else ['atom', 'fix']))
        if kind == 'atom':
            return draw(st.sampled_from(pool))
        if kind == 'fix':
            return Fix(draw(st.integers(1, size)))
        parts = [build(level - 1) for _ in range(draw(st.integers(1, 3)))]
        return Sum(parts) if kind == 'sum' else Prod(parts)

    return build(depth)


def plainly(node, kept) -> np.ndarray:
    """The positions kept, by numpy alone and without normal forms."""
    if isinstance(node, Atom):
        if node.bound is not None:
            return plainly(node.bound, kept)
        return kept.get(node, np.arange(node.size))
    if isinstance(node, Fix):
        return np.arange(node.size)
    if isinstance(node, Sum):
        labels = np.split(np.arange(node.size), np.cumsum([part.size for part in node.parts])[:-1])
        return np.concatenate([own[plainly(part, kept)] for own, part in zip(labels, node.parts)])
    labels = np.arange(node.size).reshape([own.size for own in node.factors])
    return labels[np.ix_(*[plainly(own, kept) for own in node.factors])].reshape(-1)


@given(st.data())
def test_positions_of_any_node_are_those_of_numpy_and_normal_forms_keep_them(data):
    node = data.draw(trees())
    kept = kept_of([node], data.draw)
    expected = plainly(node, kept)
    assert positions(node, kept).tolist() == expected.tolist()
    assert positions(normal(node), kept).tolist() == expected.tolist()
    assert normal(node).size == node.size
    assert width_of(node, {atom: len(index) for atom, index in kept.items()}) == len(expected)


@given(st.data())
def test_a_split_is_numpy_s_split(data):
    node = data.draw(trees())
    size = data.draw(st.integers(0, node.size))
    first, second = split(node, size)
    assert (first.size, second.size) == (size, node.size - size)
    kept = kept_of([node, first, second], data.draw)
    whole = positions(node, kept)
    assert positions(first, kept).tolist() == [place for place in whole if place < size]
    assert positions(second, kept).tolist() == [place - size for place in whole if place >= size]


@given(st.data())
def test_a_factor_is_numpy_s_reshape(data):
    node = data.draw(trees())
    outer = data.draw(st.sampled_from([size for size in range(1, node.size + 1) if node.size % size == 0]))
    first, second = factor(node, outer)
    assert (first.size, second.size) == (outer, node.size // outer)
    kept = kept_of([node, first, second], data.draw)
    labels = np.arange(node.size).reshape(outer, -1)
    expected = labels[np.ix_(positions(first, kept), positions(second, kept))]
    assert positions(node, kept).tolist() == expected.reshape(-1).tolist()


@given(st.data())
def test_unified_axes_keep_the_same_positions(data):
    first = data.draw(trees())
    second = data.draw(trees().filter(lambda node: node.size == first.size) if first.size < 4 else st.builds(
        lambda sizes: Sum([Atom(size) for size in sizes]), st.just(_cuts(first.size, data.draw))))
    unify(first, second)
    kept = kept_of([first, second], data.draw)
    assert positions(first, kept).tolist() == positions(second, kept).tolist()


def _cuts(size: int, draw) -> list[int]:
    sizes = []
    while size:
        sizes.append(draw(st.integers(1, size)))
        size -= sizes[-1]
    return sizes


@given(st.lists(st.integers(2, 4), min_size=2, max_size=3), st.permutations([0, 1, 2]), st.data())
def test_a_chain_of_views_permutations_and_joins_keeps_what_numpy_keeps(shape, order, data):
    """(a*b*c) is viewed as (a, b, c), permuted, flattened, joined with a twin and cut in the middle."""
    order = [dim for dim in order if dim < len(shape)]
    channels = Atom(math.prod(shape))
    axes = divide(channels, shape)
    mixed = normal(Prod([axes[dim] for dim in order]))
    joined = normal(Sum([mixed, mixed]))
    first, second = split(joined, joined.size // 2)
    kept = kept_of([channels, first, second], data.draw)
    labels = np.arange(channels.size)[positions(channels, kept)]
    widths = [len(positions(axis, kept)) for axis in axes]
    narrow = labels.reshape(widths).transpose(order).reshape(-1)
    full = np.arange(channels.size).reshape(shape).transpose(order).reshape(-1)
    for part in (first, second):
        assert full[positions(part, kept)].tolist() == narrow.tolist()


def test_concatenations_with_other_boundaries_are_cut_at_all_of_them():
    left, right = [Atom(4), Atom(6)], [Atom(7), Atom(3)]
    unify(Sum(left), Sum(right))
    sizes = [atom.size for atom in atoms(Sum(left))]
    assert sizes == [4, 3, 3]
    assert [atom.size for atom in atoms(right[0])] == [4, 3]
    assert list(atoms(left[1])) == list(atoms(Sum(right)))[1:]


def test_products_of_other_sizes_keep_what_they_have_in_common():
    channels = Atom(24)
    unify(channels, Prod([Atom(6, 'groups of a convolution'), Fix(4)]))
    unify(channels, Prod([Atom(8, 'groups of a normalisation'), Fix(3)]))
    atom, = atoms(channels)
    assert atom.size == 2
    assert positions(channels, {atom: np.array([1])}).tolist() == list(range(12, 24))


def test_what_cannot_be_aligned_is_frozen_with_the_reason():
    one, other = Prod([Atom(2), Fix(5)]), Prod([Fix(5), Atom(2)])
    unify(one, other, 'aten::view in neck')
    assert not list(atoms(one)) and not list(atoms(other))
    found = normal(one.factors[0])
    assert isinstance(found, Fix) and found.reason == 'aten::view in neck'


def test_a_fixed_axis_hands_its_reason_on():
    channels = Atom(8)
    unify(channels, Fix(8, 'an output of the network'), 'aten::add in head')
    assert normal(channels).reason == 'an output of the network'


def test_sizes_that_differ_freeze_both():
    one, other = Atom(4), Atom(8)
    unify(one, other)
    assert isinstance(normal(one), Fix) and isinstance(normal(other), Fix)


def test_the_same_axis_several_times_is_cut_alike():
    channels = Atom(10)
    first, second = split(Prod([Fix(3), channels]), 15)
    half = list(atoms(channels))
    assert [atom.size for atom in half] == [5, 5]
    kept = {half[0]: np.array([0, 3]), half[1]: np.array([1])}
    assert positions(channels, kept).tolist() == [0, 3, 6]
    assert positions(first, kept).tolist() == [0, 3, 6, 10, 13]
    assert positions(second, kept).tolist() == [1, 5, 8, 11]


@pytest.mark.parametrize('size', [1, 5])
def test_freezing_keeps_all_positions(size):
    node = Sum([Atom(size), Prod([Fix(2), Atom(3)])])
    freeze(node, 'a test')
    assert normal(node).size == size + 6 and isinstance(normal(node), Fix)


def test_copies_of_a_node_are_the_node():
    atom = Atom(3)
    assert copy.deepcopy({'a': [atom]})['a'][0] is atom
