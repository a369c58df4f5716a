"""Losses between the softmax probabilities of a teacher and a student, for classifiers.

Called as :mod:`mmbignas.distill.recorder` says, with logits of shape ``(N, C)`` or ``(N, C, ...)``. Every position
is a sample. The mean is over all samples of all tensors, each computed in float32.
"""
from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from mmbignas.distill.recorder import ModuleOutputs, as_float, pairs
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS

# For differences between logarithms below this, a power series of so many terms is more exact than the formulas.
SERIES_BELOW = .25
SERIES_TERMS = 7
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
        if not _is_number(temperature) or temperature <= 0:
            raise ConfigError(f'{type(self).__name__}.temperature: {temperature!r} is not allowed; allowed: numbers '
                              'above 0')
        self.temperature = temperature

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare logits of shape ``(N, C, ...)``."""
        def divergence(x: Tensor, y: Tensor) -> Tensor:
            log_q, log_p = (x / self.temperature).log_softmax(1), (y / self.temperature).log_softmax(1)
            with torch.no_grad():
                value, factors = _alpha_divergence(log_p, log_q, 1., math.inf)
            return _with_gradient(value, factors, log_q)
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
        for name, value in (('alpha_min', alpha_min), ('alpha_max', alpha_max)):
            if not _is_number(value) or abs(value) > 100:
                raise ConfigError(f'AlphaDivergenceLoss.{name}: {value!r} is not allowed; allowed: numbers from -100 '
                                  'to 100')
        if alpha_min > alpha_max:
            raise ConfigError(f'AlphaDivergenceLoss.alpha_min: {alpha_min!r} is not allowed with alpha_max '
                              f'{alpha_max!r}; allowed: numbers up to alpha_max')
        if not _is_number(clip) or not 1 < clip <= 1e30:
            raise ConfigError(f'AlphaDivergenceLoss.clip: {clip!r} is not allowed; allowed: numbers above 1, up to '
                              '1e30')
        self.alphas, self.clip = (_snapped(alpha_min), _snapped(alpha_max)), clip

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare logits of shape ``(N, C, ...)``."""
        def divergence(x: Tensor, y: Tensor) -> Tensor:
            log_q, log_p = x.log_softmax(1), y.log_softmax(1)
            with torch.no_grad():
                (value, factors), (other, others) = (
                    _alpha_divergence(log_p, log_q, alpha, math.log(self.clip)) for alpha in self.alphas)
                factors = torch.where((value > other).unsqueeze(1), factors, others)
                value = torch.maximum(value, other)
            return _with_gradient(value, factors, log_q)
        return _mean(student, teacher, divergence)


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
    log_weight = alpha * log_ratio
    small = log_ratio.abs() * max(1., abs(alpha)) < SERIES_BELOW
    # The differences p - q sum to 0. With them the terms of an unclipped divergence are all positive, and errors in
    # the logarithms are of second order.
    if alpha == 1:
        factors = p - q
        terms = p * log_ratio - factors
    else:
        if alpha == 0:
            factors = q * log_ratio
        else:
            factors = q * torch.expm1(log_weight.clamp(max=log_clip)) / alpha
            small &= log_weight <= log_clip
        terms = (factors - (p - q)) / (alpha - 1)
    series = torch.zeros_like(log_ratio)
    for count in range(SERIES_TERMS, 0, -1):
        series = series * log_ratio + sum(alpha ** power for power in range(count)) / math.factorial(count + 1)
    return torch.where(small, q * log_ratio.square() * series, terms).sum(1), factors


def _with_gradient(value: Tensor, factors: Tensor, log_q: Tensor) -> Tensor:
    """The value, with the gradient of ``-sum(factors * log_q)``."""
    path = -(factors * log_q).sum(1)
    return value + (path - path.detach())


def _mean(student: ModuleOutputs, teacher: ModuleOutputs, loss: Callable[[Tensor, Tensor], Tensor]) -> Tensor:
    """The mean of a loss over the samples of all tensors of all modules."""
    return torch.cat([loss(as_float(x), as_float(y)).flatten() for x, y in pairs(student, teacher)]).mean()


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _snapped(alpha: float) -> float:
    """The limit that an alpha is near to, or itself."""
    return next((limit for limit in (0., 1.) if abs(alpha - limit) <= NEAR_LIMIT), float(alpha))
