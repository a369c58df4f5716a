"""The points that no other point beats, and how much they dominate."""
from __future__ import annotations

import math
from collections.abc import Sequence


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """The points that no other beats: cheaper or as cheap, and better or as good, and one of the two strictly.

    Args:
        costs: the less, the better.
        values: as many; the more, the better.

    Returns:
        list: their places, by ascending cost and so by ascending value. Of several equal points, the first counts.

    Raises:
        ValueError: for a different number of costs and values, or one that is not a number.
    """
    points = list(zip(costs, values, strict=True))
    if any(own != own for point in points for own in point):
        raise ValueError('costs and values have to be numbers, not NaN')
    front: list[int] = []
    # The sort keeps the order of equal points.
    for place in sorted(range(len(points)), key=lambda place: (points[place][0], -points[place][1])):
        if not front or points[place][1] > points[front[-1]][1]:
            front.append(place)
    return front


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
