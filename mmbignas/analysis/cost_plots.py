"""Pictures of what the subnets of a space cost."""
from __future__ import annotations

from collections import Counter
from decimal import Decimal
from pathlib import Path
from typing import Any

from matplotlib import rc_context
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from mmbignas.analysis.colours import COLOURS
from mmbignas.analysis.cost_sample import NEAR_PERCENT, CostSample
from mmbignas.cost.units import format_macs, prefix_for

ORANGE, SKY, GREEN, _, BLUE, VERMILION, PURPLE, BLACK = COLOURS
MARK_COLOURS = (VERMILION, PURPLE)
SIZE_COLOURS = (BLUE, ORANGE, GREEN, SKY, PURPLE)
MAX_BINS = 60
# Inches, and dots an inch: 700 pixels wide in a README, sharp on a dense screen too.
WIDTH, HEIGHT, LEGEND_LINE, DPI = 7.0, 3.7, 0.22, 160
FONT_SIZES: dict[Any, Any] = {'font.size': 10, 'axes.titlesize': 11, 'axes.labelsize': 11, 'legend.fontsize': 10}


def draw_macs(sample: CostSample, path: str | Path) -> Figure:
    """Draw how the MACs are distributed.

    Args:
        sample: the costs.
        path: PNG file to write.

    Returns:
        Figure: what was drawn.
    """
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
        _finish(figure, path)
    return figure


def draw_macs_params(sample: CostSample, path: str | Path) -> Figure:
    """Draw MACs against numbers of parameters, in a colour for each image size.

    Args:
        sample: the costs.
        path: PNG file to write.

    Returns:
        Figure: what was drawn.
    """
    with rc_context(FONT_SIZES):
        figure, axis, unit = _begin(sample)
        params_unit, prefix = prefix_for(sample.largest.params)
        axis.set_ylabel(f'parameters ({prefix})' if prefix else 'parameters')
        counts = Counter(sample.image_sizes)
        sizes = sorted(counts, key=lambda size: (size[0] * size[1], size))
        colours = {size: SIZE_COLOURS[index % len(SIZE_COLOURS)] for index, size in enumerate(sizes)}
        # All sizes at once, in the order of the draws, so that none hides the others.
        axis.scatter([macs / unit for macs in sample.macs], [params / params_unit for params in sample.params], s=9,
                     linewidths=0, c=[colours[size] for size in sample.image_sizes],
                     alpha=max(0.1, min(0.8, (500 / len(sample.macs))**0.5)))
        for size, colour in colours.items() if len(sizes) > 1 else ():
            axis.scatter([], [], s=30, color=colour,
                         label=f'images of {size[0]} x {size[1]} pixels: {counts[size]:,} subnets')
        _mark(axis, sample, unit)
        axis.plot([cost.macs / unit for cost in (sample.smallest, sample.largest)],
                  [cost.params / params_unit for cost in (sample.smallest, sample.largest)], '*', color=BLACK,
                  markersize=11, label='smallest and largest of the space')
        _finish(figure, path)
    return figure


def _begin(sample: CostSample) -> tuple[Figure, Axes, int]:
    """A figure with one axis, whose x axis is in MACs, and the unit of that."""
    # Not pyplot's, which keeps the figures of a process and wants a display.
    figure = Figure(layout='constrained')
    axis = figure.add_subplot()
    unit, prefix = prefix_for(max([sample.largest.macs, *sample.marks.values()]))
    axis.set_xlabel(f'{prefix}MACs (multiply-adds of convolutions and linear layers)')
    space = f'{sample.space_size:,}' if sample.space_size < 10**9 else f'{Decimal(sample.space_size):.2e}'
    sizes = set(sample.image_sizes)
    size = ', images of {} x {} pixels'.format(*sizes.pop()) if len(sizes) == 1 else ''
    axis.set_title(f'{len(sample.macs):,} subnets of a space of {space}{size}')
    axis.spines[['top', 'right']].set_visible(False)
    return figure, axis, unit


def _mark(axis: Axes, sample: CostSample, unit: int) -> None:
    """Shade the range, and draw a line for each network to compare with."""
    low, high = sample.flops_range
    if low is not None or high is not None:
        low, high = low or sample.smallest.macs, high or sample.largest.macs
        # Not beyond the space, which would shrink to nothing in a picture of all that was asked for.
        axis.axvspan(max(low, sample.smallest.macs) / unit, min(high, sample.largest.macs) / unit, color='0.9',
                     linewidth=0, zorder=0, label=f'range: {format_macs(low)} to {format_macs(high)}')
    for (name, macs), colour in zip(sample.marks.items(), MARK_COLOURS):
        near = ', '.join(f'{sample.near(macs, percent):,} within {percent} %' for percent in NEAR_PERCENT)
        axis.axvline(macs / unit, color=colour, linewidth=1.8, label=f'{name}, {format_macs(macs)}: {near}')


def _finish(figure: Figure, path: str | Path) -> None:
    """Put the legend below the axis, where it covers nothing, and write the file."""
    legend = figure.legend(loc='outside lower left', frameon=False)
    figure.set_size_inches(WIDTH, HEIGHT + LEGEND_LINE * len(legend.get_texts()))
    figure.savefig(path, dpi=DPI, format='png')
