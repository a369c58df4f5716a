"""Losses between the predictions of dense detection heads, anchor by anchor.

Teacher and student are compared at the same anchors with the same weights, which the teacher's scores give. No
assignment of the student's own takes part: were its positives chosen by its own predictions, a weak student would be
taught at other anchors than those that the teacher knows something about.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.registry import TASK_UTILS
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.distill.recorder import ModuleOutputs, as_float, pairs
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS
from mmbignas.utils.rules import Rule, check_options, number

BOX_DIM = 4
BETA = Rule(lambda beta: beta == 0 or number(1, 10).holds(beta), '0, or a number from 1 to 10')
THRESHOLD = number(0, below=1)


@MODELS.register_module()
class DenseKLLoss(nn.Module):
    """KL divergence from the teacher's to the student's sigmoid scores, for a dense head's classification logits.

    Every score is a Bernoulli variable of its own, as the head treats it; the sum is divided by the sum of the
    teacher's scores, which stands for the number of objects, so that the many background locations do not drown them.
    It is 0 where the student agrees with the teacher. Where the head's scores mean the quality of its boxes (quality
    focal loss), it is that quality which is distilled.

    Args:
        beta: if above 0, each divergence is multiplied by the absolute difference of the two scores to this power, as
            quality focal loss does (Generalized Focal Loss, Li et al., https://arxiv.org/abs/2006.04388, section 3.2),
            so that what the student knows already counts little.
        score_thr: compare the locations with a best score of the teacher above this alone.

    Raises:
        ConfigError: for a beta that is not 0 or from 1, or a threshold outside of 0 to 1.
    """

    sigmoid_scores = True  # each of them on its own, not a softmax

    def __init__(self, beta: float = 0., score_thr: float = 0.) -> None:
        super().__init__()
        check_options('DenseKLLoss', locals(), dict(beta=BETA, score_thr=THRESHOLD))
        self.beta, self.score_thr = beta, score_thr

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare logits of shape ``(N, A * num_classes, H, W)``."""
        total = weight = as_float(teacher[0][0]).new_zeros(())
        for x, y in pairs(student, teacher):
            x, y = as_float(x), as_float(y)
            p, q = y.sigmoid(), x.sigmoid()
            # Score by score: the difference of a summed cross entropy and a summed entropy would be mostly rounding.
            positive = p * (F.logsigmoid(y) - F.logsigmoid(x))
            negative = (-y).sigmoid() * (F.logsigmoid(-y) - F.logsigmoid(-x))
            divergence = positive + negative
            if self.beta:
                divergence = divergence * (p - q).abs() ** self.beta
            if self.score_thr:
                chosen = p.amax(1, keepdim=True) > self.score_thr
                divergence, p = divergence * chosen, p * chosen
            total = total + divergence.sum()
            weight = weight + p.sum()
        return total / weight.clamp(min=1)


@MODELS.register_module()
class DenseBoxLoss(nn.Module):
    """Absolute difference of box deltas, weighted by the teacher's best score at each anchor.

    A job with this loss names two modules: that of the box deltas and that of the classification logits.

    Args:
        box_dim: numbers per box.
        score_thr: compare the anchors with a best score of the teacher above this alone.

    Raises:
        ConfigError: for a threshold outside of 0 to 1.
    """

    num_modules = 2
    sigmoid_scores = True

    def __init__(self, box_dim: int = BOX_DIM, score_thr: float = 0.) -> None:
        super().__init__()
        self.box_dim, self.score_thr = box_dim, THRESHOLD.check(score_thr, 'DenseBoxLoss.score_thr')

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare deltas of shape ``(N, A * box_dim, H, W)`` under logits ``(N, A * num_classes, H, W)``."""
        total = weight = as_float(teacher[0][0]).new_zeros(())
        for x, y, score in _anchors(student, teacher, self.box_dim, self.score_thr):
            total = total + (score * (x - y).abs().sum(1)).sum()
            weight = weight + score.sum()
        return total / weight.clamp(min=1)


@MODELS.register_module()
class DenseGIoULoss(nn.Module):
    """1 - GIoU of the student's box with the teacher's, weighted by the teacher's best score at each anchor.

    A job with this loss names two modules: that of the box deltas and that of the classification logits. GIoU
    (https://arxiv.org/abs/1902.09630) does not change where both boxes are shifted and scaled alike along an axis, so
    the deltas are decoded at one anchor, a square of side 1, for all.

    Args:
        score_thr: compare the anchors with a best score of the teacher above this alone.
        bbox_coder: the head's box coder, where it is not a ``DeltaXYWHBBoxCoder`` with the default means and standard
            deviations: of 4 numbers relative to the anchor's size.

    Raises:
        ConfigError: for a threshold outside of 0 to 1.
    """

    num_modules = 2
    sigmoid_scores = True

    def __init__(self, score_thr: float = .05, bbox_coder: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self.score_thr = THRESHOLD.check(score_thr, 'DenseGIoULoss.score_thr')
        self.bbox_coder = TASK_UTILS.build(dict(bbox_coder or dict(type='mmdet.DeltaXYWHBBoxCoder')))

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare deltas of shape ``(N, A * 4, H, W)`` under logits ``(N, A * num_classes, H, W)``."""
        total = weight = as_float(teacher[0][0]).new_zeros(())
        for x, y, score in _anchors(student, teacher, BOX_DIM, self.score_thr):
            total = total + (score * (1 - self._giou(x, y))).sum()
            weight = weight + score.sum()
        return total / weight.clamp(min=1)

    def _giou(self, x: Tensor, y: Tensor) -> Tensor:
        """GIoU of the boxes of deltas ``(n, 4)``."""
        from mmdet.structures.bbox import bbox_overlaps
        anchors = y.new_tensor([0., 0., 1., 1.]).expand(len(y), BOX_DIM)
        ours, theirs = (self.bbox_coder.decode(anchors, deltas) for deltas in (x, y))
        return bbox_overlaps(ours, theirs, mode='giou', is_aligned=True)


def _anchors(student: ModuleOutputs, teacher: ModuleOutputs, box_dim: int,
             score_thr: float) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The anchors to compare in each tensor: both deltas ``(n, box_dim)``, and the teacher's best score ``(n,)``."""
    if len(teacher[0]) != len(teacher[1]):
        raise ConfigError(f'a loss of boxes needs as many tensors of box deltas as of logits, got {len(teacher[0])} '
                          f'and {len(teacher[1])}')
    for x, y, logits in zip(student[0], teacher[0], teacher[1], strict=True):
        anchors = y.shape[1] // box_dim if y.dim() == 4 and y.shape[1] % box_dim == 0 else 0
        if not anchors or logits.shape[1] % anchors or logits.shape[2:] != y.shape[2:]:
            raise ConfigError(f'a loss of boxes needs box deltas (N, A * {box_dim}, H, W) from the first module and '
                              f'classification logits (N, A * num_classes, H, W) from the second, got '
                              f'{tuple(y.shape)} and {tuple(logits.shape)}')
        batch, _, height, width = y.shape
        score = as_float(logits).sigmoid().view(batch, anchors, -1, height, width).amax(2)
        chosen = score > score_thr
        ours, theirs = (as_float(own).view(batch, anchors, box_dim, height, width).movedim(2, -1)[chosen]
                        for own in (x, y))
        yield ours, theirs, score[chosen]
