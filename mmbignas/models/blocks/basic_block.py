"""The residual block of ResNet-18/34."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.models.layers import build_conv, build_norm, middle_width, middle_widths, set_active


class BigBasicBlock(BaseModule):
    """Two convolutions and a shortcut (He et al., arXiv 1512.03385).

    Whether the shortcut has a projection is fixed when the block is built; it never depends on the widths drawn.

    Args:
        in_channels, out_channels, kernel_sizes, expand_ratios: ascending choices.
        stride: of the first convolution.
        projection: whether the shortcut is a 1x1 convolution with normalisation, or the identity.
        dynamic: whether the block is part of a supernet.
        conv_cfg, norm_cfg: as in mmcv.
        drop_path_rate: probability of dropping the residual branch for a sample when training.
        init_cfg: as in MMEngine.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int], kernel_sizes: Sequence[int],
                 expand_ratios: Sequence[float], *, stride: int, projection: bool, dynamic: bool,
                 conv_cfg: Mapping[str, Any] | None, norm_cfg: Mapping[str, Any], drop_path_rate: float = 0.,
                 init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        middle = middle_widths(out_channels, expand_ratios)
        self.conv1 = build_conv(in_channels[-1], middle, kernel_sizes, dynamic=dynamic, conv_cfg=conv_cfg,
                                stride=stride)
        self.bn1 = build_norm(norm_cfg, middle, dynamic=dynamic)
        self.conv2 = build_conv(middle[-1], out_channels, kernel_sizes, dynamic=dynamic, conv_cfg=conv_cfg)
        self.bn2 = build_norm(norm_cfg, out_channels, dynamic=dynamic)
        self.downsample = nn.Sequential(
            build_conv(in_channels[-1], out_channels, (1,), dynamic=dynamic, conv_cfg=conv_cfg, stride=stride),
            build_norm(norm_cfg, out_channels, dynamic=dynamic)) if projection else None
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def set_active(self, out_channel: int, kernel_size: int, expand_ratio: float) -> None:
        """Compute with these widths and this kernel from now on."""
        set_active(self.conv1, middle_width(out_channel, expand_ratio), kernel_size)
        set_active(self.conv2, out_channel, kernel_size)
        if self.downsample is not None:
            set_active(self.downsample[0], out_channel)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, out_channel, H / stride, W / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = self.drop_path(self.bn2(self.conv2(out)))
        return F.relu(out + shortcut, inplace=True)
