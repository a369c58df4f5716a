"""Losses between the second stages of two-stage detectors, region by region."""
from __future__ import annotations

from torch import Tensor, nn

from mmbignas.distill.recorder import ModuleOutputs, as_float
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS

BOX_DIM = 4


@MODELS.register_module()
class RegionBoxLoss(nn.Module):
    """Absolute difference of box deltas, weighted by how sure the teacher is that there is an object.

    A job with this loss names two modules: that of the box deltas and that of the classification logits. Where each
    class has deltas of its own, those of the teacher's most probable class are compared. For the classes themselves,
    :class:`~mmbignas.distill.SoftLabelLoss` compares all regions.
    """

    num_modules = 2

    def forward(self, student: ModuleOutputs, teacher: ModuleOutputs) -> Tensor:
        """Compare deltas ``(K, 4)`` or ``(K, C * 4)`` of regions under logits ``(K, C + 1)``, background last.

        Raises:
            ConfigError: for outputs of other shapes.
        """
        total = weight = as_float(teacher[0][0]).new_zeros(())
        for x, y, logits in zip(student[0], teacher[0], teacher[1], strict=True):
            classes = logits.shape[-1] - 1
            if y.dim() != 2 or len(y) != len(logits) or y.shape[1] not in (BOX_DIM, classes * BOX_DIM):
                raise ConfigError(f'RegionBoxLoss needs box deltas (K, {BOX_DIM}) or (K, C * {BOX_DIM}) from the first '
                                  'module and classification logits (K, C + 1) from the second, got '
                                  f'{tuple(y.shape)} and {tuple(logits.shape)}')
            best, label = as_float(logits).softmax(1)[:, :-1].max(1)
            each = (as_float(x) - as_float(y)).abs().view(len(y), -1, BOX_DIM).sum(2)
            total = total + (best * each.gather(1, label[:, None] % each.shape[1])[:, 0]).sum()
            weight = weight + best.sum()
        return total / weight.clamp(min=1)
