"""Pictures of what subnets detect."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Patch, Rectangle
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData

from mmbignas.analysis.figures import COLOURS, save_figure

# In inches, except font sizes and dots per inch.
WIDTH, GAP, LINE, LEGEND_LINE, FONT_SIZE, SCORE_SIZE, DPI = 4.1, 0.1, 0.22, 0.27, 11, 8, 100
CHARACTER, HANDLE = 0.1, 0.8  # of the legend: width of a letter, and of what stands around a name


def draw_subnets(columns: Mapping[str, Sequence[Any]], images: Sequence[np.ndarray], classes: Sequence[str],
                 path: str | Path, score_thr: float = 0.3) -> Figure:
    """Draw the detections of several subnets on the same images, one row per image and one column per subnet.

    All of them that are good enough are drawn, those with the best scores on top.

    Args:
        columns: title of each column, of one or more lines -> its predictions, one ``DetDataSample`` per image.
        images: RGB images of shape ``(H, W, 3)``, uint8, of any sizes, in the coordinates of the boxes.
        classes: names of the classes. Where there are more than colours, the legend has those that were found, and
            where these are too many as well, the boxes have the names too.
        path: PNG file to write; it appears when it is complete.
        score_thr: detections below this score are left out.

    Returns:
        Figure: what was drawn.
    """
    found = {title: [_good_ones(sample.pred_instances, score_thr) for sample in samples]
             for title, samples in columns.items()}
    shown = sorted(range(len(classes)) if len(classes) <= len(COLOURS) else
                   {label for column in found.values() for own in column for label in own.labels.tolist()})
    colours = {label: COLOURS[place % len(COLOURS)] for place, label in enumerate(shown)}
    names = classes if len(shown) > len(COLOURS) else None
    total_width = len(columns) * (WIDTH + GAP) + GAP
    longest = max((len(classes[label]) for label in shown), default=0)
    per_line = max(1, int(total_width / (HANDLE + CHARACTER * longest)))
    # An image that is higher than it is wide gets a square.
    heights = [WIDTH * min(image.shape[0] / image.shape[1], 1.) for image in images]
    top = sum(heights) + len(images) * GAP + GAP + LEGEND_LINE * math.ceil(len(shown) / per_line)
    total_height = top + LINE * max(len(title.splitlines()) for title in columns) + GAP
    figure = Figure(figsize=(total_width, total_height))
    for row, (image, height) in enumerate(zip(images, heights)):
        top -= height
        for column, (title, instances) in enumerate(found.items()):
            left = GAP + column * (WIDTH + GAP)
            axis = figure.add_axes((left / total_width, top / total_height, WIDTH / total_width, height / total_height))
            axis.set_title('' if row else title, loc='left', fontsize=FONT_SIZE)
            _draw_image(axis, image, instances[row], colours, names)
        top -= GAP
    if shown:
        handles = [Patch(color=colours[label], label=classes[label]) for label in shown]
        figure.legend(handles=handles, loc='lower center', ncols=min(len(shown), per_line), frameon=False,
                      fontsize=FONT_SIZE, borderaxespad=0.2)
    save_figure(figure, path, DPI)
    return figure


def _good_ones(instances: InstanceData, score_thr: float) -> InstanceData:
    """The detections that are good enough, the best ones last, so that they are drawn on top."""
    kept = instances[instances.scores >= score_thr]
    return kept[kept.scores.argsort()]


def _draw_image(axis: Axes, image: np.ndarray, instances: InstanceData, colours: Mapping[int, str],
                names: Sequence[str] | None) -> None:
    """One image with boxes in the colours of their classes, and their scores."""
    axis.imshow(image)
    axis.set_axis_off()
    axis.set_anchor('N')
    boxes = get_box_tensor(instances.bboxes).tolist()
    for (left, top, right, bottom), label, score in zip(boxes, instances.labels.tolist(), instances.scores.tolist()):
        colour = colours[label]
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2))
        axis.text(max(left, 0), max(top, 0), f'{names[label]} {score:.2f}' if names else f'{score:.2f}',
                  fontsize=SCORE_SIZE, va='top', clip_on=True, color='white' if _is_dark(colour) else 'black',
                  bbox=dict(facecolor=colour, edgecolor='none', pad=0.8))


def _is_dark(colour: str) -> bool:
    red, green, blue = to_rgb(colour)
    return 0.3 * red + 0.6 * green + 0.1 * blue < 0.4
