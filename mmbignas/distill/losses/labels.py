"""Losses between class scores of teacher and student, beside :mod:`mmbignas.distill.losses.soft_labels`.

All take logits of shape ``(N, C)`` or ``(N, C, ...)``; every position is a sample.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.distill.losses.soft_labels import SoftLabelLoss
from mmbignas.distill.recorder import ModuleOutputs, as_float, pairs
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS


@MODELS.register_module()
class SoftCrossEntropyLoss(SoftLabelLoss):
    """Cross entropy with the teacher's probabilities as labels, times the squared temperature.

    Its gradient is that of :class:`~mmbignas.distill.SoftLabelLoss`; its value has the entropy of the labels in it, so
    it compares with a cross entropy with hard labels, but is not 0 where the student agrees.

    Args:
        temperature: what the logits of both are divided by.
    """

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """The mean over the samples of all tensors."""
        losses = [F.cross_entropy(as_float(x) / self.temperature, (as_float(y) / self.temperature).softmax(1),
                                  reduction='none').flatten() for x, y in pairs(student, teacher)]
        return torch.cat(losses).mean() * self.temperature ** 2


@MODELS.register_module()
class SoftBCELoss(nn.Module):
    """Binary cross entropy with the teacher's sigmoid scores as labels, for classes that do not exclude each other.

    The mean is over all scores of all tensors. For a dense detection head, where almost all scores are background's,
    see :class:`~mmbignas.distill.DenseKLLoss`.
    """

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """The mean over the scores of all tensors."""
        losses = [F.binary_cross_entropy_with_logits(as_float(x), as_float(y).sigmoid(), reduction='none').flatten()
                  for x, y in pairs(student, teacher)]
        return torch.cat(losses).mean()


@MODELS.register_module()
class GuidedSoftLabelLoss(SoftLabelLoss):
    """:class:`~mmbignas.distill.SoftLabelLoss` on the images alone whose class the teacher finds most probable.

    The sum is divided by the number of all images, so a teacher that is often wrong teaches little. Only for one module
    of logits ``(N, C)``, with one label an image; after mixing (Mixup, CutMix), the label with the greatest part.

    Args:
        temperature: what the logits of both are divided by.
    """

    needs_data_samples = True
    num_modules = 1

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs,
                data_samples: Sequence[Any] = ()) -> Tensor:
        """Compare where the teacher is right.

        Args:
            student: logits of shape ``(N, C)``.
            teacher: as many.
            data_samples: the batch's, with ``gt_score`` or ``gt_label``.

        Raises:
            ConfigError: for other outputs, or a batch without labels.
        """
        [xs], [ys] = student, teacher
        if len(ys) != 1 or ys[0].dim() != 2:
            raise ConfigError(f'GuidedSoftLabelLoss: outputs of shape {", ".join(str(tuple(y.shape)) for y in ys)} are '
                              'not allowed; allowed: logits of shape (N, C)')
        [x], [y] = xs, ys
        right = y.argmax(1) == _labels(data_samples).to(y.device)
        if not right.any():
            return as_float(x[right]).sum()
        return super().forward([[x[right]]], [[y[right]]]) * right.float().mean()


def _labels(data_samples: Sequence[Any]) -> Tensor:
    """The class of each image, as MMPretrain's data samples say it."""
    labels = []
    for sample in data_samples:
        if 'gt_score' in sample:
            labels.append(sample.gt_score.argmax())
        elif 'gt_label' in sample and sample.gt_label.numel() == 1:
            labels.append(sample.gt_label.reshape(()))
        else:
            raise ConfigError('GuidedSoftLabelLoss: the data samples of the batch have no gt_label of one class; '
                              'allowed: data sets with one label an image')
    return torch.stack(labels)
