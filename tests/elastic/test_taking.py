"""Taking pieces of a tensor and putting them back, against numpy."""
from __future__ import annotations

import copy

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmbignas.elastic.taking import Taking


@st.composite
def indices(draw):
    """A shape of up to four axes, and positions to take along each, in ascending order, or `None`."""
    shape = draw(st.lists(st.integers(1, 24), min_size=1, max_size=4))
    while np.prod(shape) > 5000:
        shape = shape[:-1]
    index = []
    for size in shape:
        chosen = sorted(draw(st.sets(st.integers(0, size - 1), min_size=1)))
        index.append(draw(st.sampled_from([None, np.array(chosen), np.arange(len(chosen))])))
    return shape, index


def mesh(shape, index):
    return np.ix_(*[np.arange(size) if own is None else own for own, size in zip(index, shape)])


@given(indices(), st.booleans())
def test_what_is_taken_and_its_gradient_are_those_of_numpy(case, grad):
    shape, index = case
    full = torch.randn(*shape, requires_grad=grad)
    taking = Taking(index, shape)
    taken = taking.take(full)
    expected = full.detach().numpy()[mesh(shape, index)]
    assert tuple(taken.shape) == taking.shape == expected.shape
    assert np.array_equal(taken.detach().numpy(), expected)
    assert taken.requires_grad == grad
    if grad:
        weights = torch.randn(taking.shape)
        (taken * weights).sum().backward()
        gradient = np.zeros(shape, dtype=np.float32)
        gradient[mesh(shape, index)] = weights.numpy()
        assert np.array_equal(full.grad.numpy(), gradient)


@given(indices())
def test_what_is_put_back_stands_where_it_was_taken_and_nowhere_else(case):
    shape, index = case
    full = torch.randn(*shape)
    taking, expected = Taking(index, shape), full.clone()
    values = torch.randn(taking.shape)
    expected.numpy()[mesh(shape, index)] = values.numpy()
    taking.put(full, values)
    assert torch.equal(full, expected)


@given(indices())
def test_a_view_is_one_and_nothing_else_shares_memory(case):
    shape, index = case
    full = torch.zeros(*shape)
    taking = Taking(index, shape)
    taking.take(full).fill_(1)
    whole = all(own is None or len(own) == size for own, size in zip(index, shape))
    assert bool(full.any()) == (taking.is_view or whole)


def test_pieces_are_one_node_of_autograd():
    weight = torch.nn.Parameter(torch.randn(16, 16, 3, 3))
    index = np.array([0, 1, 8, 9])
    taken = Taking([index, index, None, None], weight.shape).take(weight)
    (above, _), = taken.grad_fn.next_functions
    assert type(above).__name__ == 'AccumulateGrad'


def test_positions_index_the_first_axis():
    taking = Taking([np.array([0, 1, 4])], [6])
    assert torch.arange(6)[taking.positions(0)].tolist() == [0, 1, 4]
    assert Taking([np.array([0, 1, 2])], [6]).positions(0) == slice(0, 3)


def test_without_gradients_what_is_taken_of_a_parameter_wants_them_as_the_parameter_does():
    """Torch multiplies differently where no operand wants a gradient, and subnets would differ from plain networks."""
    weight = torch.nn.Parameter(torch.randn(8, 8))
    with torch.no_grad():
        for index in ([np.arange(4), np.arange(4)], [np.array([0, 2]), None], [np.arange(3), None]):
            assert Taking(index, weight.shape).take(weight).requires_grad
            assert not Taking(index, weight.shape).take(weight.detach()).requires_grad


def test_copies_are_the_same():
    taking = Taking([np.array([1])], [2])
    assert copy.deepcopy([taking])[0] is taking
