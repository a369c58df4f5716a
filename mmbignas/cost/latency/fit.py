"""From the sum of the parts to the whole: a straight line."""
from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class LinearFit(NamedTuple):
    """What the latencies of blocks say about that of the network.

    Args:
        intercept: milliseconds that a network takes beside its blocks.
        slope: milliseconds of the network per millisecond of its blocks.
        error: median absolute error on networks that were held out of the fit, in percent.
        fitted: names of the networks that it was fitted on.
        held_out: names of those that were held out.
    """

    intercept: float
    slope: float
    error: float
    fitted: Sequence[str]
    held_out: Sequence[str]

    def __call__(self, blocks: float) -> float:
        """Milliseconds of a network whose blocks take so many."""
        return self.intercept + self.slope * blocks


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Fit ``y = intercept + slope * x`` by the medians of slopes and intercepts (Theil, 1950; Sen, 1968).

    Unlike least squares it does not notice a few points that are far off, be they at an end of the line: those that
    were measured while the machine was busy.

    Args:
        x: at least two values that differ.
        y: as many values.

    Returns:
        tuple: intercept and slope.
    """
    x_values, y_values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    rises, runs = np.subtract.outer(y_values, y_values), np.subtract.outer(x_values, x_values)
    slope = np.median(rises[runs > 0] / runs[runs > 0])  # each pair of points once
    return float(np.median(y_values - slope * x_values)), float(slope)


def percentage_error(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Median of the absolute errors, in percent of what was measured."""
    expected = np.asarray(measured, dtype=float)
    return float(100 * np.median(np.abs(np.asarray(predicted, dtype=float) - expected) / expected))
