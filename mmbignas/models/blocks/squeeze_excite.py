"""Squeeze-and-excitation: channels weighted by the content of the whole image."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.models.layers import build_conv, set_active


class SqueezeExcite(nn.Module):
    """Squeeze-and-excitation (arXiv 1709.01507) of inputs of any of several widths.

    Args:
        widths: ascending widths of the input.
        squeezed: ascending widths of the squeeze.
        dynamic: whether it is part of a supernet.
        conv_cfg: as in mmcv.
        gate: the activation that makes weights.
    """

    def __init__(self, widths: Sequence[int], squeezed: Sequence[int], *, dynamic: bool,
                 conv_cfg: Mapping[str, Any] | None, gate: nn.Module) -> None:
        super().__init__()
        common: dict[str, Any] = dict(dynamic=dynamic, conv_cfg=conv_cfg, bias=True)
        self.reduce = build_conv(widths[-1], squeezed, (1,), **common)
        self.expand = build_conv(squeezed[-1], widths, (1,), **common)
        self.gate = gate

    def set_active(self, width: int, squeezed: int) -> None:
        """Take inputs of this width from now on, with this width of the squeeze."""
        set_active(self.reduce, squeezed)
        set_active(self.expand, width)

    def forward(self, x: Tensor) -> Tensor:
        """Weight the channels of ``x`` of shape ``(N, C, H, W)``."""
        weights = F.relu(self.reduce(F.adaptive_avg_pool2d(x, 1)), inplace=True)
        return x * self.gate(self.expand(weights))
