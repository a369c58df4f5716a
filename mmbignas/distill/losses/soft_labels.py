"""Losses between the class scores of a teacher and a student.

Called as :mod:`mmbignas.distill.recorder` says, with logits of shape ``(N, C)`` or ``(N, C, ...)``. Every position
is a sample. The mean is over all samples of all tensors, each computed in float32.
"""
from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.distill.recorder import ModuleOutputs, as_float, pairs
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS
from mmbignas.utils.rules import check_options, must_be, number

ALPHA_RULES = dict(alpha_min=number(-100, 100), alpha_max=number(-100, 100), clip=number(above=1, high=1e30))
# An alpha so near to 0 or 1 is taken for it: the formulas divide by the distance.
NEAR_LIMIT = 1e-3


@MODELS.register_module()
class SoftLabelLoss(nn.Module):
    """KL divergence from the teacher's to the student's probabilities, times the squared temperature.

    It is the cross entropy with the teacher's probabilities as labels less their entropy, so 0 where the student
    agrees. The square keeps the size of the gradients (Hinton et al., https://arxiv.org/abs/1503.02531).

    Args:
        temperature: what the logits of both are divided by.

    Raises:
        ConfigError: for a temperature that is no number above 0.
    """

    def __init__(self, temperature: float = 1.) -> None:
        super().__init__()
        self.temperature = number(above=0).check(temperature, f'{type(self).__name__}.temperature')

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare logits of shape ``(N, C, ...)``."""
        def divergence(x: Tensor, y: Tensor) -> Tensor:
            log_q, log_p = (x / self.temperature).log_softmax(1), (y / self.temperature).log_softmax(1)
            p, q = log_p.exp(), log_q.exp()
            # As F.kl_div, but p - q, which sums to 0, leaves errors in the logarithms of second order.
            return (p * (log_p - log_q) - (p - q)).sum(1)
        return _mean(student, teacher, divergence) * self.temperature ** 2


@MODELS.register_module()
class AlphaDivergenceLoss(nn.Module):
    """The larger one of two alpha-divergences from the teacher's to the student's probabilities, for each sample.

    With the probabilities ``p`` of the teacher and ``q`` of the student, it is
    ``sum(q * ((p / q) ** alpha - 1)) / (alpha * (alpha - 1))``; the limits at 1 and 0 are ``KL(p || q)`` and
    ``KL(q || p)``. A negative alpha weighs most the classes that the student finds too likely, a positive one those
    that it finds too unlikely (AlphaNet, Wang et al., https://arxiv.org/abs/2102.07954).

    The importance weights ``(p / q) ** alpha`` are clipped, in the value, in the choice between the two, and in the
    gradient by the student, ``-sum(q * min((p / q) ** alpha, clip) * grad(log(q))) / alpha``. Were the choice made
    without, a few unlikely classes would decide for the negative alpha, whose clipped gradient hardly moves a student
    that knows nothing yet. At the limits, whose gradients cannot explode, nothing is clipped. With an alpha above
    1, a clipped value may be below 0.

    Args:
        alpha_min: the one alpha, from -100; within 0.001 of 0 or 1, the limit.
        alpha_max: the other one, not smaller, up to 100.
        clip: the largest importance weight, above 1.

    Raises:
        ConfigError: for values that are not allowed.
    """

    def __init__(self, alpha_min: float = -1., alpha_max: float = 1., clip: float = 5.) -> None:
        super().__init__()
        check_options('AlphaDivergenceLoss', locals(), ALPHA_RULES)
        if alpha_min > alpha_max:
            raise must_be('AlphaDivergenceLoss.alpha_min', f'at most AlphaDivergenceLoss.alpha_max={alpha_max}',
                          alpha_min)
        self.alphas, self.clip = (_snapped(alpha_min), _snapped(alpha_max)), clip

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare logits of shape ``(N, C, ...)``."""
        def divergence(x: Tensor, y: Tensor) -> Tensor:
            log_q, log_p = x.log_softmax(1), y.log_softmax(1)
            with torch.no_grad():
                (value, factors), (other, others) = (
                    _alpha_divergence(log_p, log_q, alpha, math.log(self.clip)) for alpha in self.alphas)
                factors = torch.where((value > other).unsqueeze(1), factors, others)
            path = -(factors * log_q).sum(1)  # has the gradient of clipped weights, which is not that of their value
            return torch.maximum(value, other) + (path - path.detach())
        return _mean(student, teacher, divergence)


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
        def entropy(x: Tensor, y: Tensor) -> Tensor:
            return F.cross_entropy(x / self.temperature, (y / self.temperature).softmax(1), reduction='none')
        return _mean(student, teacher, entropy) * self.temperature ** 2


@MODELS.register_module()
class SoftBCELoss(nn.Module):
    """Binary cross entropy with the teacher's sigmoid scores as labels, for classes that do not exclude each other.

    The mean is over all scores of all tensors. For a dense detection head, where almost all scores are background's,
    see :class:`~mmbignas.distill.DenseKLLoss`.
    """

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """The mean over the scores of all tensors."""
        return _mean(student, teacher, lambda x, y: F.binary_cross_entropy_with_logits(x, y.sigmoid(),
                                                                                       reduction='none'))


@MODELS.register_module()
class GuidedSoftLabelLoss(SoftLabelLoss):
    """:class:`~mmbignas.distill.SoftLabelLoss` on the images alone whose class the teacher finds most probable.

    The sum is divided by the number of all images, so a teacher that is often wrong teaches little. Only for one module
    of logits ``(N, C)``, with one label per image; after mixing (Mixup, CutMix), the label with the greatest part.

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
            raise must_be('outputs of GuidedSoftLabelLoss', 'logits (N, C)', [tuple(y.shape) for y in ys])
        [x], [y] = xs, ys
        right = y.argmax(1) == _labels(data_samples).to(y.device)
        if not right.any():
            return as_float(x[right]).sum()
        return super().forward([[x[right]]], [[y[right]]]) * right.float().mean()


def _alpha_divergence(log_p: Tensor, log_q: Tensor, alpha: float, log_clip: float) -> tuple[Tensor, Tensor]:
    """The divergence of each sample, and the factors of its gradient.

    Args:
        log_p: the teacher's log-probabilities, ``(N, C, ...)``.
        log_q: the student's.
        alpha: which divergence.
        log_clip: logarithm of the largest importance weight.

    Returns:
        tuple: the divergence ``(N, ...)``, and factors ``(N, C, ...)`` of ``-grad(log_q)``, less the student's
        probability over alpha. That changes no gradient, as probabilities sum to 1; it makes the factors 0 where
        ``p`` and ``q`` agree.
    """
    p, q, log_ratio = log_p.exp(), log_q.exp(), log_p - log_q
    # The differences p - q sum to 0; with them, errors in the logarithms are of second order.
    if alpha == 1:
        return (p * log_ratio - (p - q)).sum(1), p - q
    factors = q * torch.expm1((alpha * log_ratio).clamp(max=log_clip)) / alpha if alpha else q * log_ratio
    return (factors - (p - q)).sum(1) / (alpha - 1), factors


def _mean(student: ModuleOutputs, teacher: ModuleOutputs, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The mean of a loss over the samples of all tensors of all modules."""
    return torch.cat([loss(as_float(x), as_float(y.detach())).flatten() for x, y in pairs(student, teacher)]).mean()


def _snapped(alpha: float) -> float:
    """The limit that an alpha is near to, or itself."""
    return next((limit for limit in (0., 1.) if abs(alpha - limit) <= NEAR_LIMIT), float(alpha))


def _labels(data_samples: Sequence[Any]) -> Tensor:
    """The class of each image, as MMPretrain's data samples say it."""
    labels = []
    for sample in data_samples:
        if 'gt_score' in sample:
            labels.append(sample.gt_score.argmax())
        elif 'gt_label' in sample and sample.gt_label.numel() == 1:
            labels.append(sample.gt_label.reshape(()))
        else:
            raise ConfigError('GuidedSoftLabelLoss: data samples must have a gt_label of one class')
    return torch.stack(labels)
