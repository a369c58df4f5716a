"""Pictures of what the subnets of a space cost."""
from __future__ import annotations

from collections import Counter
from pathlib import Path

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmbignas.analysis.cost_sample import NEAR_PERCENT, CostSample
from mmbignas.analysis.figures import (
    BLACK,
    FONT_SIZES,
    MACS_LABEL,
    MARK_COLOURS,
    SKY,
    alpha,
    finish,
    new_figure,
    shade_range,
    size_colours,
    space_title,
)
from mmbignas.utils.units import format_macs, prefix_for

MAX_BINS = 60


def draw_macs(sample: CostSample, path: str | Path) -> Figure:
    """Draw how the MACs are distributed into a PNG file."""
    with rc_context(FONT_SIZES):
        figure, axis, unit = _begin(sample)
        values = [macs / unit for macs in sample.macs]
        bins = min(MAX_BINS, 5 + round(len(values)**0.5))
        axis.hist(values, bins=bins, color=SKY, edgecolor='white', linewidth=0.4)
        axis.set_ylabel('subnets')
        axis.yaxis.set_major_locator(MaxNLocator(steps=[1, 2, 5, 10], integer=True))
        _mark(axis, sample, unit)
        for cost, marker, name in ((sample.smallest, '>', 'smallest'), (sample.largest, '<', 'largest')):
            axis.plot(cost.macs / unit, 0, marker, color=BLACK, markersize=9, clip_on=False, zorder=3,
                      label=f'{name} of the space: {format_macs(cost.macs)}')
        finish(figure, path)
    return figure


def draw_macs_params(sample: CostSample, path: str | Path) -> Figure:
    """Draw MACs against numbers of parameters into a PNG file, in a colour for each image size."""
    with rc_context(FONT_SIZES):
        figure, axis, unit = _begin(sample)
        params_unit, prefix = prefix_for(sample.largest.params)
        axis.set_ylabel(f'parameters ({prefix})' if prefix else 'parameters')
        counts = Counter(sample.image_sizes)
        colours = size_colours(counts)
        # All sizes at once, in the order of the draws, so that none hides the others.
        axis.scatter([macs / unit for macs in sample.macs], [params / params_unit for params in sample.params], s=9,
                     linewidths=0, c=[colours[size] for size in sample.image_sizes],
                     alpha=alpha(len(sample.macs)))
        for size, colour in colours.items() if len(colours) > 1 else ():
            axis.scatter([], [], s=30, color=colour,
                         label=f'images of {size[0]} x {size[1]} pixels: {counts[size]:,} subnets')
        _mark(axis, sample, unit)
        axis.plot([cost.macs / unit for cost in (sample.smallest, sample.largest)],
                  [cost.params / params_unit for cost in (sample.smallest, sample.largest)], '*', color=BLACK,
                  markersize=11, label='smallest and largest of the space')
        finish(figure, path)
    return figure


def _begin(sample: CostSample) -> tuple[Figure, Axes, int]:
    """A figure with one axis, whose x axis is in MACs, and the unit of that."""
    figure, axis = new_figure(space_title(len(sample.macs), sample.space_size, set(sample.image_sizes)))
    unit, prefix = prefix_for(max([sample.largest.macs, *sample.marks.values()]))
    axis.set_xlabel(prefix + MACS_LABEL)
    return figure, axis, unit


def _mark(axis: Axes, sample: CostSample, unit: int) -> None:
    """Shade the range, and draw a line for each network to compare with."""
    # Not beyond the space, which would shrink to nothing in a picture of all that was asked for.
    shade_range(axis, sample.flops_range, (sample.smallest.macs, sample.largest.macs), unit)
    for (name, macs), colour in zip(sample.marks.items(), MARK_COLOURS):
        near = ', '.join(f'{sample.near(macs, percent):,} within {percent} %' for percent in NEAR_PERCENT)
        axis.axvline(macs / unit, color=colour, linewidth=1.8, label=f'{name}, {format_macs(macs)}: {near}')
