"""Pictures of how good the evaluated subnets of a space are."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmbignas.analysis.accuracy_sample import AccuracySample, EvaluatedSubnet, format_size
from mmbignas.analysis.figures import (
    BLACK,
    BLUE,
    FONT_SIZES,
    MACS_LABEL,
    MARK_COLOURS,
    alpha,
    finish,
    new_figure,
    shade_range,
    size_colours,
    space_title,
)
from mmbignas.utils.rules import must_be, one_of
from mmbignas.utils.units import format_macs, prefix_for


def draw_accuracy(sample: AccuracySample, path: str | Path, cost: str = 'macs') -> Figure:
    """Draw ``metric1`` against a cost: all subnets, the Pareto front, and the ten best near each mark.

    Where there are several image sizes, each has a colour and a front of its own. The marks and the range of MACs are
    drawn where the cost is MACs.

    Args:
        sample: the subnets, at least one.
        path: PNG file to write; it appears when it is complete.
        cost: ``macs``, ``params`` or, where it is known, ``latency_ms``.

    Returns:
        Figure: what was drawn.

    Raises:
        ConfigError: for another cost, or no subnets.
    """
    check_sample(sample, cost)
    with rc_context(FONT_SIZES):
        figure, axis = new_figure(space_title(len(sample.subnets), sample.space_size, sample.image_sizes()))
        unit, label = cost_axis(sample, cost)
        axis.set_xlabel(label)
        axis.set_ylabel(sample.metric1 or 'no metrics')
        _draw_subnets(axis, sample, cost, unit)
        end = max(getattr(own, cost) for own in sample.subnets if getattr(own, cost) is not None) / unit
        colours = size_colours(sample.image_sizes())
        for size, colour in colours.items() if len(colours) > 1 else ():
            _draw_front(axis, sample, sample.of_size(size).front(cost), cost, unit, end, color=colour, linewidth=1.2)
        front = sample.front(cost)
        _draw_front(axis, sample, front, cost, unit, end, color=BLACK, linewidth=1.6, marker='o', markersize=3.5,
                    label=f'Pareto front: {len(front):,} subnets')
        if cost == 'macs':
            macs = [own.macs for own in sample.subnets]
            shade_range(axis, sample.flops_range, (min(macs), max(macs)), unit)
        _draw_marks(axis, sample, cost, unit)
        finish(figure, path)
    return figure


def check_sample(sample: AccuracySample, cost: str = 'macs') -> None:
    """Make sure that there is something to draw.

    Raises:
        ConfigError: for no subnets, or a cost that is not known for any.
    """
    if not sample.subnets:
        raise must_be('subnets', 'a non-empty list', sample.subnets)
    one_of(sample.costs()).check(cost, 'cost')


def cost_axis(sample: AccuracySample, cost: str) -> tuple[int, str]:
    """The unit of an axis with a cost, by which the cost is divided, and its label."""
    if cost == 'latency_ms':
        return 1, 'latency in milliseconds (predicted)'
    unit, prefix = prefix_for(max(getattr(own, cost) for own in sample.subnets))
    if cost == 'macs':
        return unit, prefix + MACS_LABEL
    return unit, f'parameters ({prefix})' if prefix else 'parameters'


def _draw_subnets(axis: Axes, sample: AccuracySample, cost: str, unit: int) -> None:
    """All subnets at once, in their order, so that no image size hides the others."""
    sizes, colours = sample.image_sizes(), size_colours(sample.image_sizes())
    known = [own for own in sample.subnets if getattr(own, cost) is not None]
    axis.scatter(*_points(sample, known, cost, unit), s=12, linewidths=0, alpha=alpha(len(known)),
                 c=[colours[own.image_size] if len(sizes) > 1 else BLUE for own in known])
    for size in sizes if len(sizes) > 1 else ():
        count = sum(own.image_size == size for own in known)
        axis.scatter([], [], s=30, color=colours[size],
                     label=f'images of {format_size(size)} pixels: {count:,} subnets')


def _draw_front(axis: Axes, sample: AccuracySample, front: Sequence[EvaluatedSubnet], cost: str, unit: int, end: float,
                **style: Any) -> None:
    """What can be reached at each cost, up to the end of the axis, with markers at the subnets."""
    costs, values = _points(sample, front, cost, unit)
    axis.plot([*costs, end], [*values, values[-1]], drawstyle='steps-post', markevery=range(len(front)), **style)


def _draw_marks(axis: Axes, sample: AccuracySample, cost: str, unit: int) -> None:
    """Rings around the ten best near each mark, and lines at the marks themselves."""
    for (name, macs), colour in zip(sample.marks.items(), MARK_COLOURS):
        near = [own for own in sample.best_near(macs) if getattr(own, cost) is not None]
        label = f'{name}, {format_macs(macs)}: '
        label += f'best {len(near)} within 1 %' if near else 'no subnet within 1 %'
        if cost == 'macs':
            axis.axvline(macs / unit, color=colour, linewidth=1.4, zorder=1)
        axis.plot(*_points(sample, near, cost, unit), marker='o', markersize=8, markerfacecolor='none', color=colour,
                  markeredgewidth=1.6, linestyle='none', label=label)


def _points(sample: AccuracySample, subnets: Sequence[EvaluatedSubnet], cost: str, unit: int,
            ) -> tuple[list[float], list[float]]:
    return [getattr(own, cost) / unit for own in subnets], [own.metric(sample.metric1) for own in subnets]
