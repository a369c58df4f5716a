"""The points that no other point beats."""
from __future__ import annotations

from collections.abc import Sequence


def pareto_front(costs: Sequence[float], values: Sequence[float]) -> list[int]:
    """The points that no other beats by being at most as expensive and at least as good, and strictly better in one.

    Args:
        costs: the less, the better.
        values: as many; the more, the better.

    Returns:
        list: their places, by ascending cost and so by ascending value. Among equal points, the first counts.

    Raises:
        ValueError: for different numbers of costs and values, or one that is not a number.
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
