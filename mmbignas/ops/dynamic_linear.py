"""A linear layer whose width can be reduced."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.ops.dynamic_layer import DynamicLayer
from mmbignas.ops.slicing import as_parameter, crop
from mmbignas.registry import MODELS


@MODELS.register_module()
class DynamicLinear(nn.Linear, DynamicLayer):
    """``nn.Linear`` that computes with its first output and input features.

    Args:
        in_features, out_features, bias: of the full layer, as for ``nn.Linear``.

    Attributes:
        active_out_features: output features in use.
    """

    def __init__(self, in_features: int, out_features: int, *args: Any, **kwargs: Any) -> None:
        super().__init__(in_features, out_features, *args, **kwargs)
        self.active_out_features = out_features

    def forward(self, x: Tensor) -> Tensor:
        """Map ``x`` of shape ``(..., C)`` to ``(..., active_out_features)``; ``C`` decides the input features."""
        bias = None if self.bias is None else self.bias[:self.active_out_features]
        weight = as_parameter(self.weight, crop(self.weight, (self.active_out_features, x.shape[-1])))
        return F.linear(x, weight, bias)

    def plain_shapes(self, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        weight = (self.active_out_features, input_shape[-1])
        return dict(weight=weight) if self.bias is None else dict(weight=weight, bias=weight[:1])
