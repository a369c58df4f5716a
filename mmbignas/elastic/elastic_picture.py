"""A picture of an elastic network: a bar per layer, the part that subnets can drop in colour."""
from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure
from matplotlib.patches import Patch

from mmbignas.analysis.figures import BLUE, DPI, FONT_SIZES, ORANGE, SKY
from mmbignas.elastic.network_profile import LayerProfile
from mmbignas.utils.files import replacing

GREY = '0.7'
LABELS = {BLUE: 'in every subnet', SKY: 'can be dropped', ORANGE: 'in a block that can be left out',
          GREY: 'stays as it is'}
HEIGHT, WIDTH_PER_LAYER, LEAST_WIDTH, MOST_WIDTH = 4.6, 0.11, 8.0, 24.0  # inches
LABEL_WIDTH = 0.13  # inches that a label below the axis takes


def draw_layers(layers: Sequence[LayerProfile], title: str, path: str | Path, kind: str = 'png') -> None:
    """Draw the layers of a network in the order in which they are called.

    Args:
        layers: the layers.
        title: of the picture.
        path: the file; one that is there is replaced.
        kind: ``png`` or ``svg``.
    """
    from matplotlib import rc_context

    with rc_context(FONT_SIZES):
        figure = Figure(layout='constrained')
        width = min(max(WIDTH_PER_LAYER * len(layers), LEAST_WIDTH), MOST_WIDTH)
        figure.set_size_inches(width, HEIGHT)
        axis = figure.add_subplot()
        axis.set_title(title)
        axis.spines[['top', 'right']].set_visible(False)
        places = range(len(layers))
        axis.bar(places, [layer.channels for layer in layers], 0.9,
                 color=[_colour(layer) for layer in layers], linewidth=0)
        kept = [(place, layer.least) for place, layer in zip(places, layers) if layer.is_elastic and layer.least]
        axis.bar([place for place, _ in kept], [least for _, least in kept], 0.9, color=BLUE, linewidth=0)
        axis.set_yscale('log', base=2)
        axis.set_ylim(1)
        axis.yaxis.set_major_formatter(lambda value, _: f'{value:g}')
        axis.set_ylabel('output channels')
        axis.set_xlim(-1, len(layers))
        starts = _stages(layers)
        for start in list(starts)[1:]:
            axis.axvline(start - 0.5, color='0.85', linewidth=0.8, zorder=0)
        axis.set_xticks(*_spread(starts, len(layers), width), rotation=90, fontsize=8)
        axis.tick_params(axis='x', length=0)
        used = {_colour(layer) for layer in layers} | ({BLUE} if kept else set())
        figure.legend(handles=[Patch(color=colour, label=label) for colour, label in LABELS.items() if colour in used],
                      loc='outside lower center', ncols=len(LABELS), frameon=False)
        with replacing(path) as aside:
            figure.savefig(aside, dpi=DPI, format=kind)


def _colour(layer: LayerProfile) -> str:
    if not layer.is_elastic:
        return GREY
    return SKY if layer.least else ORANGE


def _stages(layers: Sequence[LayerProfile]) -> dict[int, str]:
    """Where a stage, the first two names of the paths, begins -> its name."""
    names = ['.'.join(layer.path.split('.')[:2]) for layer in layers]
    return {place: name for place, name in enumerate(names) if place == 0 or name != names[place - 1]}


def _spread(starts: dict[int, str], count: int, width: float) -> tuple[list[int], list[str]]:
    """Labels that do not cover each other; of those that would, the first one counts."""
    room = LABEL_WIDTH / width * (count + 1)
    places: list[int] = []
    for place in starts:
        if not places or place - places[-1] >= room:
            places.append(place)
    return places, [starts[place] for place in places]
