"""The line from blocks to networks."""
from __future__ import annotations

import random
import statistics

import pytest

from mmbignas.latency.table import fit_line, percentage_error


def test_a_known_line_is_found() -> None:
    rng = random.Random(0)
    for _ in range(100):
        intercept, slope = rng.uniform(-1, 5), rng.uniform(0.5, 2)
        x = [rng.uniform(5, 100) for _ in range(12)]
        assert fit_line(x, [intercept + slope * value for value in x]) == pytest.approx((intercept, slope), rel=1e-6)


def test_outliers_do_not_bend_it() -> None:
    rng = random.Random(0)
    for _ in range(200):
        x = [rng.uniform(10, 100) for _ in range(12)]
        y = [2 + 1.1 * value for value in x]
        for index in rng.sample(range(12), 3):
            y[index] *= rng.uniform(1.3, 3)  # the machine was busy
        assert fit_line(x, y) == pytest.approx((2, 1.1), rel=1e-6)


def test_networks_of_equal_blocks() -> None:
    """Two networks may consist of blocks that take equally long, which gives no slope."""
    assert fit_line([1., 1., 2., 3.], [2., 2.2, 4., 6.]) == pytest.approx((0., 2.), abs=0.3)


def test_noise_is_averaged() -> None:
    rng = random.Random(0)
    x = [10. * 1.3**index for index in range(20)]
    errors = []
    for _ in range(100):
        intercept, slope = fit_line(x, [(3 + 0.9 * value) * rng.gauss(1, 0.03) for value in x])
        errors += [abs((intercept + slope * value) / (3 + 0.9 * value) - 1) for value in x]
    assert statistics.median(errors) < 0.01  # a third of that of one measurement


def test_percentage_error() -> None:
    rng = random.Random(0)
    for count in (1, 2, 7, 30):
        measured = [rng.uniform(1, 100) for _ in range(count)]
        predicted = [value * rng.uniform(0.8, 1.2) for value in measured]
        expected = statistics.median(abs(a / b - 1) * 100 for a, b in zip(predicted, measured))
        assert percentage_error(predicted, measured) == pytest.approx(expected)
