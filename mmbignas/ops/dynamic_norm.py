"""Batch normalisations for layers of changing width."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.distributed as torch_dist
from mmengine.dist import get_world_size
from torch import Tensor, nn
from torch.distributed.nn import functional as dist_functional
from torch.nn import functional as F

from mmbignas.ops.dynamic_layer import DynamicLayer
from mmbignas.registry import MODELS
from mmbignas.utils.rules import integer, list_of


@MODELS.register_module()
class DynamicBatchNorm2d(nn.BatchNorm2d, DynamicLayer):
    """``nn.BatchNorm2d`` that normalises the first channels: as many as the input has.

    All widths share parameters and running statistics, so a subnet's statistics are right only after BN calibration.

    Args:
        num_features, eps, momentum, affine, track_running_stats: as for ``nn.BatchNorm2d``.
    """

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape ``(N, C, H, W)`` with the first ``C`` channels' parameters."""
        width = x.shape[1]
        if width == self.num_features:
            return super().forward(x)
        self._check_input_dim(x)
        mean, var = self._statistics(width)
        weight, bias = self._affine(width)
        return F.batch_norm(x, mean, var, weight, bias, self.training or mean is None, self._next_momentum(), self.eps)

    def _statistics(self, width: int) -> tuple[Tensor | None, Tensor | None]:
        """Views of the running statistics, ``None`` if they are neither used nor moved."""
        if self.running_mean is None or self.running_var is None or self.training and not self.track_running_stats:
            return None, None
        return self.running_mean[:width], self.running_var[:width]

    def _affine(self, width: int) -> tuple[Tensor | None, Tensor | None]:
        weight, bias = (None if value is None else value[:width] for value in (self.weight, self.bias))
        return weight, bias

    def _next_momentum(self) -> float:
        """Count the batch when training, and return its share of the running statistics."""
        if not self.training or not self.track_running_stats or self.num_batches_tracked is None:
            return self.momentum if self.momentum is not None else 0.0
        self.num_batches_tracked.add_(1)
        return self.momentum if self.momentum is not None else 1.0 / float(self.num_batches_tracked)

    def plain_shapes(self, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        return dict(weight=(input_shape[1],), bias=(input_shape[1],)) if self.affine else {}


@MODELS.register_module()
class SwitchableBatchNorm2d(DynamicBatchNorm2d):
    """A batch normalisation of its own for every width (slimmable networks, arXiv 1812.08928, section 3.2).

    Args:
        num_features: the full width.
        widths: all widths that the input may have; blocks fill this in from their search space.
        **kwargs: as for ``nn.BatchNorm2d``.

    Raises:
        ConfigError: when a width is greater than ``num_features``.
    """

    def __init__(self, num_features: int, widths: Sequence[int] = (), **kwargs: Any) -> None:
        super().__init__(num_features, **kwargs)
        list_of(integer(1, num_features), f'a list of integers from 1 to {num_features}').check(
            widths, 'SwitchableBatchNorm2d.widths')
        self.narrow = nn.ModuleDict({
            str(width): nn.BatchNorm2d(width, **kwargs) for width in sorted(set(widths)) if width != num_features})

    def layer(self, width: int) -> nn.BatchNorm2d:
        """The normalisation of inputs with ``width`` channels: the module itself for the full width, else a child.

        Raises:
            ValueError: when there is none.
        """
        if width == self.num_features:
            return self
        if str(width) not in self.narrow:
            raise ValueError(f'SwitchableBatchNorm2d has no statistics for width {width}; it has: '
                             f'{", ".join([*self.narrow, str(self.num_features)])}')
        return self.narrow[str(width)]  # type: ignore[return-value]

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape ``(N, C, H, W)`` by the normalisation that belongs to ``C``.

        Raises:
            ValueError: when there is none for ``C``.
        """
        layer = self.layer(x.shape[1])
        return nn.BatchNorm2d.forward(self, x) if layer is self else layer(x)


@MODELS.register_module()
class DynamicSyncBatchNorm2d(DynamicBatchNorm2d):
    """:class:`DynamicBatchNorm2d` whose batch statistics are those of all processes together.

    The statistics go through differentiable all-reduces, two per call: first count and sum, then the squared distances
    from the common mean, which does not cancel as ``E[x^2] - E[x]^2`` does. It works with every back end (NCCL, gloo),
    on CPUs, and with batches of different sizes. With one process, or in eval mode, it is :class:`DynamicBatchNorm2d`.

    Attributes:
        synchronised: set to False to use this process's statistics alone, as BN calibration does.
    """

    synchronised = True

    def forward(self, x: Tensor) -> Tensor:
        """Normalise ``x`` of shape ``(N, C, H, W)`` by the statistics of all processes' inputs."""
        if not (self.training and self.synchronised and get_world_size() > 1):
            return super().forward(x)
        self._check_input_dim(x)
        width = x.shape[1]
        values = x.float() if x.dtype in (torch.float16, torch.bfloat16) else x
        local = torch.cat([values.sum((0, 2, 3)), values.new_tensor([values.numel() / width])])
        total = dist_functional.all_reduce(local, torch_dist.ReduceOp.SUM)
        count = total[-1].detach()
        mean = total[:-1] / count
        centred = values - mean[None, :, None, None]
        var = dist_functional.all_reduce(centred.square().sum((0, 2, 3)), torch_dist.ReduceOp.SUM) / count
        momentum = self._next_momentum()
        running_mean, running_var = self._statistics(width)
        if running_mean is not None and running_var is not None:
            with torch.no_grad():
                running_mean.lerp_(mean, momentum)
                running_var.lerp_(var * count / (count - 1).clamp(min=1), momentum)
        scale = torch.rsqrt(var + self.eps)
        weight, bias = self._affine(width)
        if weight is not None and bias is not None:
            return (centred * (scale * weight)[None, :, None, None] + bias[None, :, None, None]).to(x.dtype)
        return (centred * scale[None, :, None, None]).to(x.dtype)
