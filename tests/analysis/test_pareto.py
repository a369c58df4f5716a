"""Fronts against their definition."""
from __future__ import annotations

import math
import random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbignas.analysis import pareto_front

POINTS = st.lists(st.tuples(st.integers(0, 12), st.integers(-3, 9)), max_size=40)


def beats(one: tuple[float, float], other: tuple[float, float]) -> bool:
    return one[0] <= other[0] and one[1] >= other[1] and one != other


def by_definition(points: list[tuple[float, float]]) -> list[int]:
    unbeaten = [place for place, own in enumerate(points)
                if not any(beats(other, own) for other in points) and own not in points[:place]]
    return sorted(unbeaten, key=lambda place: points[place])


@given(POINTS)
def test_front_of_many_ties(points: list[tuple[int, int]]) -> None:
    front = pareto_front([cost for cost, _ in points], [value for _, value in points])
    assert front == by_definition(points)
    values = [points[place][1] for place in front]
    assert values == sorted(set(values))


def test_front_of_random_points() -> None:
    rng = random.Random(0)
    for _ in range(300):
        count = rng.randrange(1, 80)
        points = [(rng.choice([rng.random(), rng.randrange(4)]), rng.choice([rng.random(), rng.randrange(3)]))
                  for _ in range(count)]
        points += rng.choices(points, k=rng.randrange(4))
        rng.shuffle(points)
        costs, values = zip(*points)
        assert pareto_front(costs, values) == by_definition(points)
        assert pareto_front(np.array(costs), np.array(values)) == by_definition(points)


def test_amounts_beyond_floats() -> None:
    assert pareto_front([10**30 + 1, 10**30, 10**30 + 2], [1, 1, 2]) == [1, 2]
    assert pareto_front([1, 2], [-math.inf, -math.inf]) == [0]


def test_nothing() -> None:
    assert pareto_front([], []) == []


@pytest.mark.parametrize(('costs', 'values'), [([1, 2], [1]), ([1], [1, 2]), ([math.nan], [1]), ([1], [math.nan])])
def test_what_is_refused(costs: list[float], values: list[float]) -> None:
    with pytest.raises(ValueError, match='shorter|longer|NaN'):
        pareto_front(costs, values)
