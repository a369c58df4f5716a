"""What pictures of subnets have in common."""
from __future__ import annotations

from collections.abc import Collection, Iterable
from decimal import Decimal
from pathlib import Path
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from mmbignas.space import ImageSize
from mmbignas.utils.files import replacing
from mmbignas.utils.units import format_macs

# In inches, and dots per inch: 700 pixels wide in a README, sharp on a dense screen too.
WIDTH, HEIGHT, LEGEND_LINE, DPI = 7.0, 3.7, 0.22, 160
FONT_SIZES: dict[Any, Any] = {'font.size': 10, 'axes.titlesize': 11, 'axes.labelsize': 11, 'legend.fontsize': 10}
MACS_LABEL = 'MACs (multiply-adds of convolutions and linear layers)'  # a prefix comes before it
# Okabe and Ito's colours, which colour-blind people can tell apart.
COLOURS = ('#E69F00', '#56B4E9', '#009E73', '#F0E442', '#0072B2', '#D55E00', '#CC79A7', '#000000')
ORANGE, SKY, GREEN, _, BLUE, VERMILION, PURPLE, BLACK = COLOURS
MARK_COLOURS = (VERMILION, PURPLE)
SIZE_COLOURS = (BLUE, ORANGE, GREEN, SKY, PURPLE)


def space_title(count: int, space_size: int, image_sizes: Collection[ImageSize]) -> str:
    """What a picture of this many subnets of a space of this size shows, with their image size if it is the same."""
    space = f'{space_size:,}' if space_size < 10**9 else f'{Decimal(space_size):.2e}'
    size = ', images of {} x {} pixels'.format(*next(iter(image_sizes))) if len(image_sizes) == 1 else ''
    return f'{count:,} subnets of a space of {space}{size}'


def new_figure(title: str) -> tuple[Figure, Axes]:
    """A figure with one axis."""
    # Not pyplot's, which keeps all figures of a process and needs a display.
    figure = Figure(layout='constrained')
    axis = figure.add_subplot()
    axis.set_title(title)
    axis.spines[['top', 'right']].set_visible(False)
    return figure, axis


def alpha(count: int) -> float:
    """The opacity at which this many points still show where most of them are."""
    return max(0.1, min(0.8, (500 / max(count, 1))**0.5))


def shade_range(axis: Axes, limits: tuple[int | None, int | None], ends: tuple[int, int], unit: int) -> None:
    """Shade the MACs that were asked for, if there were limits.

    Args:
        axis: the axis.
        limits: the fewest and the most MACs that were asked for; ``None`` for no limit.
        ends: the fewest and the most MACs that are drawn.
        unit: MACs per unit of the x axis.
    """
    low, high = limits
    if low is not None or high is not None:
        low, high = low or ends[0], high or ends[1]
        axis.axvspan(max(low, ends[0]) / unit, min(high, ends[1]) / unit, color='0.9', linewidth=0, zorder=0,
                     label=f'range: {format_macs(low)} to {format_macs(high)}')


def finish(figure: Figure, path: str | Path) -> None:
    """Put the legend below the axis, where it covers nothing, and write the PNG file, which appears when complete."""
    legend = figure.legend(loc='outside lower left', frameon=False)
    figure.set_size_inches(WIDTH, HEIGHT + LEGEND_LINE * len(legend.get_texts()))
    save_figure(figure, path, DPI)


def save_figure(figure: Figure, path: str | Path, dpi: int) -> None:
    """Write a PNG file with this many dots per inch; it appears when it is complete."""
    with replacing(path) as aside:
        figure.savefig(aside, dpi=dpi, format='png')


def size_colours(sizes: Iterable[ImageSize]) -> dict[ImageSize, str]:
    """A colour for each image size, ascending by area; after five, they start again."""
    ascending = sorted(set(sizes), key=lambda size: (size[0] * size[1], size))
    return {size: SIZE_COLOURS[index % len(SIZE_COLOURS)] for index, size in enumerate(ascending)}
