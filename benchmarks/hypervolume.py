"""How much the points of a search dominate."""
from __future__ import annotations

import math
from collections.abc import Sequence

from mmbignas.analysis import pareto_front


def hypervolume(costs: Sequence[float], values: Sequence[float], reference: tuple[float, float]) -> float:
    """The area that is dominated by the points and itself dominates the reference point.

    Args:
        costs: the less, the better.
        values: as many; the more, the better.
        reference: a cost and a value. Points that are not both cheaper and better add nothing.

    Returns:
        float: the area, exact but for rounding; 0 where no point counts.

    Raises:
        ValueError: for a different number of costs and values, or one that is not a number.
    """
    most, least = reference
    front = [(costs[place], values[place]) for place in pareto_front(costs, values)
             if costs[place] < most and values[place] > least]
    # Up to the next cost, the best value is that of the point before.
    ends = [*[cost for cost, _ in front[1:]], most]
    return math.fsum((end - cost) * (value - least) for (cost, value), end in zip(front, ends))
