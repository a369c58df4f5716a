"""Whether the boxes that an exported detector finds are such as MMDetection finds, where scores are equal too.

Which of two boxes with equal scores is kept is a matter of chance, and so is all that follows from it. A network that
was trained for an epoch gives hundreds of equal scores. So results are not compared with one result of MMDetection,
but with what makes a result right: each box is one that MMDetection decodes; no two of them overlap; and whatever is
not there overlaps with a box at least as good, or is no better than the worst of a full list.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from mmdet.structures.bbox import bbox_overlaps
from mmengine.structures import InstanceData
from torch import Tensor

from mmbignas.errors import MismatchError
from mmbignas.export.detection import DetectionNetwork

# Boxes this near are the same.
BOX_TOLERANCE, SCORE_TOLERANCE = 1., 0.01  # pixels
TIE, OVERLAP = 1e-4, 0.01  # scores nearer than this are equal, and overlaps (IoU) at most as large as the limit
OTHER_BOXES = 0.02  # rounding may change that few boxes
Run = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class BoxCheck:
    """Detections of an exported detector beside those of MMDetection, on random images.

    Args:
        expected: how many MMDetection found, one entry per image; each batch is there twice, as images that fill
            the input and as images with padding.
        found: how many the exported network found.
        max_box_diff: the greatest difference of a coordinate in pixels, between each box that was found and the most
            similar one that MMDetection decodes of the same class; infinite where there is none.
        max_score_diff: the same for their scores.
    """

    expected: list[int]
    found: list[int]
    max_box_diff: float
    max_score_diff: float


@torch.no_grad()
def compare_boxes(network: DetectionNetwork, run: Run, batches: Sequence[int]) -> BoxCheck:
    """Compare detections on random images with MMDetection's own.

    Args:
        network: the model with decoding and NMS.
        run: runs the exported network, which takes images and their sizes, and gives boxes, scores and labels.
        batches: numbers of images.

    Raises:
        MismatchError: when a fiftieth of the boxes, or more, are missing, or are none of MMDetection's.
    """
    expected, found, missing, others, box_diff, score_diff = [], [], 0, 0, 0., 0.
    for count in batches:
        images = network.network.random_images(count)
        raw = network.network(images)
        for sizes in (network.full_sizes(count), network.random_sizes(count)):
            rows = zip(network.reference(raw, sizes), network.decoded(raw, sizes, TIE), *run(images, sizes),
                       strict=True)
            for right, decoded, boxes, scores, labels in rows:
                own = InstanceData(bboxes=boxes, scores=scores, labels=labels)[labels >= 0]
                expected.append(len(right))
                found.append(len(own))
                box_diffs, score_diffs = _differences(own, decoded)
                box_diff, score_diff = max([box_diff, *box_diffs.tolist()]), max([score_diff, *score_diffs.tolist()])
                none = (box_diffs > BOX_TOLERANCE) | (score_diffs > SCORE_TOLERANCE)
                others += int((none | _suppressed(own, own, network, strict=True)).sum())
                missing += int(_wanted(decoded, own, network).sum())
    if missing > OTHER_BOXES * sum(expected) or others > OTHER_BOXES * sum(found):
        raise MismatchError(
            f'the exported network finds other boxes than MMDetection, which finds {sum(expected)}: {missing} are '
            f'missing, and of its {sum(found)} {others} are others, by more than {BOX_TOLERANCE:g} pixel, a score of '
            f'{SCORE_TOLERANCE:g}, or the overlap that is allowed; at most {OTHER_BOXES:.0%} may be')
    return BoxCheck(expected, found, box_diff, score_diff)


def _differences(own: InstanceData, decoded: InstanceData) -> tuple[Tensor, Tensor]:
    """By how much each box that was found, and its score, differ from the most similar one of its class."""
    box_diffs, score_diffs = (torch.full_like(own.scores, float('inf')) for _ in range(2))
    for index, label in enumerate(own.labels):
        same = decoded[decoded.labels == label]
        if len(same):
            boxes = (same.bboxes - own.bboxes[index]).abs().amax(-1)
            scores = (same.scores - own.scores[index]).abs()
            nearest = torch.maximum(boxes / BOX_TOLERANCE, scores / SCORE_TOLERANCE).argmin()
            box_diffs[index], score_diffs[index] = boxes[nearest], scores[nearest]
    return box_diffs, score_diffs


def _suppressed(boxes: InstanceData, own: InstanceData, network: DetectionNetwork, strict: bool = False) -> Tensor:
    """Which boxes overlap with one of the detector's own that is at least as good.

    Args:
        boxes: the boxes.
        own: those that the detector found.
        network: what the limit is of.
        strict: boxes and detector's boxes are the same, and each is to be compared with those before it.
    """
    overlaps = bbox_overlaps(boxes.bboxes, own.bboxes)
    better = own.scores >= boxes.scores[:, None] - TIE
    if strict:
        better = torch.ones_like(better).tril(-1)
    if not network.class_agnostic:
        better = better & (boxes.labels[:, None] == own.labels)
    return (better & (overlaps > network.iou_threshold + (OVERLAP if strict else -OVERLAP))).any(1)


def _wanted(decoded: InstanceData, own: InstanceData, network: DetectionNetwork) -> Tensor:
    """Which of MMDetection's boxes have to be among the detector's own, and are not.

    Those that are there overlap with themselves.
    """
    least = network.score_thr
    if len(own) == network.max_per_img:
        least = max(least, float(own.scores.min()))
    sure = decoded[(decoded.scores > least + TIE) & (decoded.scores > decoded.limits + TIE)]
    return ~_suppressed(sure, own, network)
