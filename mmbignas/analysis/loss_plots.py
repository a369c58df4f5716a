"""Pictures of losses in training."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from matplotlib import colormaps, rc_context
from matplotlib.figure import Figure

from mmbignas.analysis.drawing import DPI, FONT_SIZES
from mmbignas.replacing import replacing

COLUMNS, PANEL_WIDTH, PANEL_HEIGHT = 3, 3.6, 2.8
MAX_LEGEND = 6  # lines; of more, the legend has the first and the last


def draw_subnet_losses(curves: Mapping[str, Sequence[Sequence[float]]], path: str | Path) -> Figure:
    """Draw the mean losses of subnets over the iterations: a panel for each element, a line for each of its values.

    Args:
        curves: ``<element>/<value>``, e.g. ``backbone.depth.3/6`` or ``image_size/192x224`` -> points of iteration and
            mean loss.
        path: PNG file to write, which appears when it is complete.

    Returns:
        Figure: what was drawn.
    """
    panels: dict[str, dict[str, Sequence[Sequence[float]]]] = {}
    for tag, curve in curves.items():
        element, _, value = tag.rpartition('/')
        panels.setdefault(element, {})[value] = curve
    columns = min(COLUMNS, len(panels))
    rows = -(-len(panels) // columns)
    with rc_context({**FONT_SIZES, 'legend.fontsize': 8, 'axes.titlesize': 10, 'axes.labelsize': 10}):
        # Not pyplot's, which keeps the figures of a process and wants a display.
        figure = Figure(layout='constrained', figsize=(PANEL_WIDTH * columns, PANEL_HEIGHT * rows))
        for number, (element, lines) in enumerate(panels.items()):
            axis = figure.add_subplot(rows, columns, number + 1)
            axis.set_title(element)
            axis.spines[['top', 'right']].set_visible(False)
            values = sorted(lines, key=lambda value: [float(part) for part in value.split('x')])
            for index, value in enumerate(values):
                # The values have an order, so the colours have one too; the brightest would not show on white.
                colour = colormaps['viridis'](0.9 * index / max(len(values) - 1, 1))
                shown = len(values) <= MAX_LEGEND or index in (0, len(values) - 1)
                axis.plot(*zip(*lines[value]), color=colour, linewidth=1.4, label=value if shown else None)
            axis.legend(frameon=False)
        figure.supxlabel('iteration', fontsize=10)
        figure.supylabel('mean loss of random subnets', fontsize=10)
        with replacing(path) as aside:
            figure.savefig(aside, dpi=DPI, format='png')
    return figure
