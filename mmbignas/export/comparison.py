"""What a written network computes, beside what the model computes."""
from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import torch
from mmengine.structures import InstanceData
from torch import Tensor

from mmbignas.errors import ConfigError
from mmbignas.export.detection import DetectionNetwork

TOLERANCE = 1e-3  # of the greatest output; beyond it, it is another network
# Boxes this near are the same. Where scores are equal to the last digit, which boxes are kept is a matter of chance, so
# that a few may be others.
BOX_TOLERANCE, SCORE_TOLERANCE, OTHER_BOXES = 1., 0.01, 0.02
Run = Callable[..., Sequence[Tensor]]


@dataclass(frozen=True)
class BoxCheck:
    """Detections of an exported detector beside those of MMDetection, on random images.

    Args:
        expected: how many MMDetection found, one entry per image; each batch is there twice, as images that fill
            the input and as images with padding.
        found: how many the exported network found.
        max_box_diff: the greatest difference of a coordinate in pixels, between each of MMDetection's boxes and the
            most similar that was found of the same class; infinite where there is none.
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
def compare_raw(network: Run, run: Run, batches: Iterable[Tensor]) -> tuple[float, float]:
    """Compare the raw outputs of two networks.

    Args:
        network: computes the outputs of the model for images ``(N, C, H, W)``.
        run: those of the exported network.
        batches: the images.

    Returns:
        tuple: the greatest difference, and the greatest output of the model.

    Raises:
        ConfigError: when the model's outputs are not finite.
        RuntimeError: when outputs differ by more than a thousandth of the greatest one.
    """
    worst = greatest = torch.zeros((), dtype=torch.float64)
    for images in batches:
        for ours, theirs in zip(network(images), run(images), strict=True):
            worst = torch.maximum(worst, (ours.double() - theirs.double()).abs().max())  # keeps what is not a number
            greatest = torch.maximum(greatest, ours.double().abs().max())
    if not greatest.isfinite():
        raise ConfigError('model: its outputs for random images are not finite')
    if not worst <= TOLERANCE * greatest:
        raise RuntimeError(f'the exported network computes something else than the model: outputs differ by '
                           f'{worst:.3g}, and are at most {greatest:.3g}')
    return float(worst), float(greatest)


@torch.no_grad()
def compare_boxes(network: DetectionNetwork, run: Run, batches: Sequence[int]) -> BoxCheck:
    """Compare detections on random images with MMDetection's own.

    Args:
        network: the model with decoding and NMS.
        run: runs the exported network, which takes images and their sizes, and gives boxes, scores and labels.
        batches: numbers of images.

    Raises:
        RuntimeError: when more than a fiftieth of MMDetection's boxes were not found, or of those that were found are
            not MMDetection's.
    """
    expected, found, missing, extra, box_diff, score_diff = [], [], 0, 0, 0., 0.
    for count in batches:
        images = network.network.random_images(count)
        raw = network.network(images)
        for sizes in (network.full_sizes(count), network.random_sizes(count)):
            for right, boxes, scores, labels in zip(network.reference(raw, sizes), *run(images, sizes), strict=True):
                ours = InstanceData(bboxes=boxes, scores=scores, labels=labels)[labels >= 0]
                expected.append(len(right))
                found.append(len(ours))
                box_diffs, score_diffs = _differences(right, ours)
                missing += _without_partner(box_diffs, score_diffs)
                extra += _without_partner(*_differences(ours, right))
                box_diff, score_diff = max([box_diff, *box_diffs.tolist()]), max([score_diff, *score_diffs.tolist()])
    if missing > OTHER_BOXES * sum(expected) or extra > OTHER_BOXES * sum(found):
        raise RuntimeError(
            f'the exported network finds other boxes than MMDetection: {missing} of the {sum(expected)} of MMDetection '
            f'are missing and {extra} of {sum(found)} are others, by more than {BOX_TOLERANCE:g} pixel or a score of '
            f'{SCORE_TOLERANCE:g}; at most {OTHER_BOXES:.0%} may be')
    return BoxCheck(expected, found, box_diff, score_diff)


def _differences(ours: InstanceData, others: InstanceData) -> tuple[Tensor, Tensor]:
    """By how much each box of an image, and its score, differ from the most similar of the same class among others."""
    if not len(others):
        return torch.full_like(ours.scores, float('inf')), torch.full_like(ours.scores, float('inf'))
    # Not by rank: where scores are almost equal, the order is a matter of rounding.
    box_diffs = (ours.bboxes[:, None] - others.bboxes).abs().amax(-1)
    score_diffs = (ours.scores[:, None] - others.scores).abs()
    same = ours.labels[:, None] == others.labels
    box_diffs, score_diffs = (torch.where(same, values, float('inf')) for values in (box_diffs, score_diffs))
    partner = torch.maximum(box_diffs / BOX_TOLERANCE, score_diffs / SCORE_TOLERANCE).argmin(1, keepdim=True)
    return box_diffs.gather(1, partner)[:, 0], score_diffs.gather(1, partner)[:, 0]


def _without_partner(box_diffs: Tensor, score_diffs: Tensor) -> int:
    return int(((box_diffs > BOX_TOLERANCE) | (score_diffs > SCORE_TOLERANCE)).sum())
