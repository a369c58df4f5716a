"""Pictures of what subnets detect."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
from mmdet.visualization import DetLocalVisualizer

matplotlib.use('Agg', force=False)


def draw_detections(rows: Mapping[str, Sequence[Any]], images: Sequence[np.ndarray], dataset_meta: Mapping[str, Any],
                    path: str | Path, score_thr: float = 0.3, scale: int = 1) -> None:
    """Draw the detections of several subnets on the same images, one row a subnet.

    Args:
        rows: title of each row -> its predictions, a ``DetDataSample`` an image. Ground truth can be a row of its own:
            samples whose ``pred_instances`` are the annotated boxes.
        images: RGB images of shape ``(H, W, 3)``, uint8.
        dataset_meta: of the data set; its ``classes`` name the boxes.
        path: PNG file to write.
        score_thr: detections below this score are left out.
        scale: enlarge small images this many times.
    """
    from matplotlib import pyplot as plt
    visualizer = DetLocalVisualizer(line_width=2)
    visualizer.dataset_meta = dict(dataset_meta)
    figure, axes = plt.subplots(len(rows), len(images), figsize=(3 * len(images), 3.2 * len(rows)), squeeze=False)
    for axis_row, (title, samples) in zip(axes, rows.items()):
        for axis, image, sample in zip(axis_row, images, samples):
            sample = sample.cpu().numpy() if hasattr(sample, 'cpu') else sample
            axis.imshow(_drawn(visualizer, image, sample, score_thr, scale))
            axis.set_axis_off()
        axis_row[0].set_title(title, loc='left', fontsize=11)
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    plt.close(figure)


def _drawn(visualizer: DetLocalVisualizer, image: np.ndarray, sample: Any, score_thr: float, scale: int) -> np.ndarray:
    """One image with the boxes of its sample."""
    large = np.repeat(np.repeat(image, scale, 0), scale, 1)
    instances = sample.pred_instances.clone()
    instances.bboxes = instances.bboxes * scale
    sample = sample.clone()
    sample.pred_instances = instances
    visualizer.add_datasample('', large, sample, draw_gt=False, pred_score_thr=score_thr)
    return visualizer.get_image()
