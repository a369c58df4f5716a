"""Dominated areas against optuna's and against counting squares."""
from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from benchmarks.hypervolume import hypervolume

POINTS = st.lists(st.tuples(st.integers(0, 12), st.integers(-3, 9)), max_size=40)


def area_by_squares(points: list[tuple[int, int]], reference: tuple[int, int]) -> int:
    """Unit squares of which some point dominates every part."""
    most, least = reference
    return sum(any(cost <= x and value >= y + 1 for cost, value in points)
               for x in range(min([most, *(cost for cost, _ in points)]), most)
               for y in range(least, max([least, *(value for _, value in points)])))


@given(POINTS, st.tuples(st.integers(0, 14), st.integers(-4, 6)))
def test_area_by_counting(points: list[tuple[int, int]], reference: tuple[int, int]) -> None:
    costs, values = [cost for cost, _ in points], [value for _, value in points]
    assert hypervolume(costs, values, reference) == area_by_squares(points, reference)


def test_area_by_optuna() -> None:
    compute = pytest.importorskip('optuna._hypervolume').compute_hypervolume
    rng = np.random.default_rng(0)
    for _ in range(200):
        points = rng.random((rng.integers(1, 60), 2)).round(rng.integers(1, 8))  # with ties, and without
        reference = rng.uniform(0.5, 1.2), rng.uniform(-0.2, 0.5)
        # Optuna minimises, and wants no point beyond the reference.
        inside = points[(points[:, 0] < reference[0]) & (points[:, 1] > reference[1])] * [1, -1]
        expected = compute(inside, np.array([reference[0], -reference[1]])) if len(inside) else 0.
        assert hypervolume(*points.T, reference) == pytest.approx(expected, rel=1e-12, abs=1e-15)


def test_amounts_beyond_floats() -> None:
    assert hypervolume([1 * 10**12, 2 * 10**12], [0.25, 0.5], (4 * 10**12, 0)) == 1.25 * 10**12


def test_nothing() -> None:
    assert hypervolume([], [], (1, 0)) == 0
    assert hypervolume([1, 0], [5, 0], (1, 0)) == 0  # on the edges


def test_what_is_refused() -> None:
    with pytest.raises(ValueError, match='NaN'):
        hypervolume([1], [math.nan], (5, 0))
