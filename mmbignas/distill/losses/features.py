"""Losses between the features of a teacher and a student."""
from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.distill.recorder import ModuleOutputs, as_float, pairs
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS


@MODELS.register_module()
class FeatureMSELoss(nn.Module):
    """Squared difference of features of shape ``(N, C, ...)``, averaged over the tensors.

    Args:
        normalize: compare directions: at each position, both vectors of channels are first scaled to length 1, and
            their squared distance is ``2 - 2 * cosine``. Otherwise the mean of the squared differences of the channels.
        masked: weigh each position by the teacher's best score there, so that background counts little. The job then
            names one module more, the last: that of a dense head's classification logits, at the same positions as
            the features (of a neck, say, tensor by tensor). The weighted sum is divided by the sum of the scores, not
            by less than 1, over all tensors.
    """

    def __init__(self, normalize: bool = False, masked: bool = False) -> None:
        super().__init__()
        self.normalize, self.masked = normalize, masked

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare all tensors of all modules."""
        if not self.masked:
            return torch.stack([self._distance(x, y).mean() for x, y in pairs(student, teacher)]).mean()
        features, logits = list(pairs(student[:-1], teacher[:-1])), teacher[-1]
        if [(len(y), *y.shape[2:]) for _, y in features] != [(len(own), *own.shape[2:]) for own in logits]:
            raise ConfigError('FeatureMSELoss.masked: features and, from the last module, logits must have the same '
                              f'positions, got {[tuple(y.shape) for _, y in features]} and '
                              f'{[tuple(own.shape) for own in logits]}')
        scores = [as_float(own).sigmoid().amax(1) for own in logits]
        totals = [(score * self._distance(x, y)).sum() for (x, y), score in zip(features, scores, strict=True)]
        return torch.stack(totals).sum() / torch.stack([score.sum() for score in scores]).sum().clamp(min=1)

    def _distance(self, x: Tensor, y: Tensor) -> Tensor:
        """At each position, ``(N, ...)``."""
        x, y = as_float(x), as_float(y)
        if self.normalize:
            return (F.normalize(x, dim=1) - F.normalize(y, dim=1)).square().sum(1)
        return (x - y).square().mean(1)
