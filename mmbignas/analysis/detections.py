"""Pictures of what subnets detect."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import pyplot as plt
from matplotlib.axes import Axes
from matplotlib.patches import Patch, Rectangle
from mmcv.ops import nms
from mmdet.structures.bbox import get_box_tensor
from mmengine.structures import InstanceData

from mmbignas.analysis.colours import COLOURS

COVERED_IOU = 0.5


def draw_detections(rows: Mapping[str, Sequence[Any]], images: Sequence[np.ndarray], classes: Sequence[str],
                    path: str | Path, score_thr: float = 0.3) -> None:
    """Draw the detections of several subnets on the same images, one row a subnet, below the annotated boxes.

    Of detections that lie on top of each other, whatever their class, the one with the best score is drawn.

    Args:
        rows: title of each row -> its predictions, a ``DetDataSample`` an image, with the annotations in
            ``gt_instances``.
        images: RGB images of shape ``(H, W, 3)``, uint8, in the coordinates of the boxes.
        classes: names of the classes.
        path: PNG file to write.
        score_thr: detections below this score are left out.
    """
    count = len(images)
    figure, axes = plt.subplots(len(rows) + 1, count, figsize=(2.4 * count, 2.6 * (len(rows) + 1) + 0.4), squeeze=False)
    annotated = [sample.gt_instances for sample in next(iter(rows.values()))]
    found = {title: [_visible(sample.pred_instances, score_thr) for sample in samples]
             for title, samples in rows.items()}
    for axis_row, (title, row) in zip(axes, {'annotated': annotated, **found}.items()):
        for axis, image, instances in zip(axis_row, images, row):
            _draw(axis, image, instances)
        axis_row[0].set_title(title, loc='left', fontsize=12)
    handles = [Patch(color=COLOURS[label % len(COLOURS)], label=name) for label, name in enumerate(classes)]
    figure.legend(handles=handles, loc='lower center', ncols=min(len(classes), 8), frameon=False, fontsize=12)
    figure.tight_layout(rect=(0, 0.4 / figure.get_figheight(), 1, 1))
    figure.savefig(path, dpi=80)
    plt.close(figure)


def _visible(instances: InstanceData, score_thr: float) -> InstanceData:
    """The detections that are good enough, without those that a better one covers."""
    instances = instances[instances.scores >= score_thr]
    _, kept = nms(instances.bboxes, instances.scores, COVERED_IOU)
    return instances[kept]


def _draw(axis: Axes, image: np.ndarray, instances: InstanceData) -> None:
    """One image with boxes in the colours of their classes, and their scores if they have any."""
    axis.imshow(image)
    axis.set_axis_off()
    boxes = get_box_tensor(instances.bboxes).cpu().tolist()
    scores = instances.scores.tolist() if 'scores' in instances else [None] * len(boxes)
    for (left, top, right, bottom), label, score in zip(boxes, instances.labels.tolist(), scores):
        colour = COLOURS[label % len(COLOURS)]
        axis.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=colour, linewidth=2))
        if score is not None:
            axis.text(max(left, 0), max(top, 0), f'{score:.2f}', fontsize=8, va='top', clip_on=True,
                      bbox=dict(facecolor=colour, edgecolor='none', pad=0.8))
