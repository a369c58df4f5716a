"""What a written network computes, beside what the model computes."""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmbignas.deploy.detection import DetectionNetwork
from mmbignas.deploy.network import Network

TOLERANCE = 1e-3  # of the greatest output; beyond it, it is another network

Run = Callable[[Tensor], Sequence[Tensor]]


@dataclass(frozen=True)
class BoxCheck:
    """Detections of an exported detector beside those of MMDetection, on random images.

    Args:
        expected: how many MMDetection found, an entry for each image.
        found: how many the exported network found.
        max_box_diff: the greatest difference of a coordinate in pixels, between each of MMDetection's boxes and the
            nearest that was found of the same class; infinite where there is none. Where scores are equal to the last
            digit, which boxes are kept is a matter of chance, and this says nothing.
        max_score_diff: the same for their scores.
    """

    expected: list[int]
    found: list[int]
    max_box_diff: float
    max_score_diff: float


@dataclass(frozen=True)
class ExportCheck:
    """What was written, and how exact it is.

    Args:
        path: the file.
        size: bytes of the file.
        params: parameters of the model.
        outputs: names of the outputs, in order.
        batches: numbers of images that it was run with.
        max_abs_diff: the greatest difference of a raw output from the model's own.
        max_abs_output: the greatest raw output.
        boxes: for a file with boxes, how the detections compare.
    """

    path: str
    size: int
    params: int
    outputs: list[str]
    batches: list[int]
    max_abs_diff: float
    max_abs_output: float
    boxes: BoxCheck | None = None


@torch.no_grad()
def compare_raw(network: Network, run: Run, batches: Sequence[int]) -> tuple[float, float]:
    """Compare raw outputs on random images.

    Args:
        network: the model.
        run: runs the exported network.
        batches: numbers of images.

    Returns:
        tuple: the greatest difference, and the greatest output of the model.

    Raises:
        RuntimeError: when outputs differ by more than a thousandth of the greatest one, or are not finite.
    """
    worst = greatest = torch.zeros((), dtype=torch.float64)
    for count in batches:
        images = network.random_images(count)
        for ours, theirs in zip(network(images), run(images), strict=True):
            worst = torch.maximum(worst, (ours.double() - theirs.double()).abs().max())  # keeps what is not a number
            greatest = torch.maximum(greatest, ours.double().abs().max())
    if not worst <= TOLERANCE * greatest:
        raise RuntimeError(f'the exported network computes something else than the model: outputs differ by '
                           f'{worst:.3g}, and are at most {greatest:.3g}')
    return float(worst), float(greatest)


@torch.no_grad()
def compare_boxes(network: DetectionNetwork, run: Run, batches: Sequence[int]) -> BoxCheck:
    """Compare detections on random images with MMDetection's own.

    Args:
        network: the model with decoding and NMS.
        run: runs the exported network, which gives boxes, scores and labels.
        batches: numbers of images.
    """
    expected, found, box_diff, score_diff = [], [], 0., 0.
    for count in batches:
        images = network.network.random_images(count)
        for right, boxes, scores, labels in zip(network.reference(network.network(images)), *run(images), strict=True):
            there = labels >= 0
            expected.append(len(right.bboxes))
            found.append(int(there.sum()))
            differences = _differences(right, boxes[there], scores[there], labels[there])
            box_diff, score_diff = max(box_diff, differences[0]), max(score_diff, differences[1])
    return BoxCheck(expected, found, box_diff, score_diff)


def _differences(right: InstanceData, boxes: Tensor, scores: Tensor, labels: Tensor) -> tuple[float, float]:
    """By how much the boxes of an image, and their scores, differ from the nearest of the same class."""
    if not len(right.bboxes):
        return 0., 0.
    if not len(boxes):
        return float('inf'), float('inf')
    # Not by rank: where scores are almost equal, the order is a matter of rounding.
    distances = (right.bboxes[:, None] - boxes).abs().amax(-1)
    distances = torch.where(right.labels[:, None] == labels, distances, float('inf'))
    nearest = distances.min(1)
    score_diff = torch.where(nearest.values.isfinite(), (right.scores - scores[nearest.indices]).abs(), float('inf'))
    return float(nearest.values.max()), float(score_diff.max())
