"""Losses between what a teacher and a student put out at the same modules.

Each takes two sequences, student and teacher, with an entry for every module named in the job: the list of that
module's output tensors, one a call. All are computed in float32.
"""
from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.registry import MODELS

ModuleOutputs = Sequence[Sequence[Tensor]]


@MODELS.register_module()
class FeatureMSELoss(nn.Module):
    """Mean squared difference of features of shape ``(N, C, H, W)``, averaged over the tensors.

    Where widths differ, the channels that both have are compared: a subnet's channels are the first ones of the
    supernet's.
    """

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare all tensors of all modules."""
        losses = []
        for ours, theirs in zip(student, teacher, strict=True):
            for x, y in zip(ours, theirs, strict=True):
                width = min(x.shape[1], y.shape[1])
                losses.append(F.mse_loss(x[:, :width].float(), y[:, :width].float()))
        return torch.stack(losses).mean()


@MODELS.register_module()
class DenseKLLoss(nn.Module):
    """KL divergence from the teacher's to the student's sigmoid scores, for a dense head's classification logits.

    Every score is a Bernoulli variable of its own, as the head treats it; the sum is divided by the sum of the
    teacher's scores, which stands for the number of objects, so that the many background locations do not drown them.
    It is 0 where the student agrees with the teacher.
    """

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare logits of shape ``(N, A * num_classes, H, W)``."""
        total = weight = teacher[0][0].new_zeros((), dtype=torch.float32)
        for ours, theirs in zip(student, teacher, strict=True):
            for x, y in zip(ours, theirs, strict=True):
                x, y = x.float(), y.float()
                # Score by score: of the sums of cross entropies and of entropies little but rounding would be left.
                positive = y.sigmoid() * (F.logsigmoid(y) - F.logsigmoid(x))
                negative = (-y).sigmoid() * (F.logsigmoid(-y) - F.logsigmoid(-x))
                total = total + (positive + negative).sum()
                weight = weight + y.sigmoid().sum()
        return total / weight.clamp(min=1)


@MODELS.register_module()
class DenseBoxLoss(nn.Module):
    """Absolute difference of box deltas, weighted by the teacher's best score at each anchor.

    A job with this loss names two modules: that of the box deltas and that of the classification logits.

    Args:
        box_dim: numbers per box.
    """

    def __init__(self, box_dim: int = 4) -> None:
        super().__init__()
        self.box_dim = box_dim

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare deltas of shape ``(N, A * box_dim, H, W)`` under logits ``(N, A * num_classes, H, W)``."""
        total = weight = teacher[0][0].new_zeros((), dtype=torch.float32)
        for x, y, logits in zip(student[0], teacher[0], teacher[1], strict=True):
            batch, channels, height, width = y.shape
            anchors = channels // self.box_dim
            score = logits.float().sigmoid().view(batch, anchors, -1, height, width).amax(2)
            distance = (x.float() - y.float()).abs().view(batch, anchors, self.box_dim, height, width).sum(2)
            total = total + (score * distance).sum()
            weight = weight + score.sum()
        return total / weight.clamp(min=1)
