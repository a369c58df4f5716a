"""The block of RegNet."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.models.blocks.squeeze_excite import SqueezeExcite
from mmbignas.models.layers import build_conv, build_norm, middle_width, middle_widths, set_active


def squeeze_width(in_channel: int, se_ratio: float) -> int:
    """The width of the squeeze-and-excitation's squeeze: that of the block's input times ``se_ratio``."""
    return max(1, round(in_channel * se_ratio))


class BigRegNetBottleneck(BaseModule):
    """A 1x1, a grouped and a 1x1 convolution, and a shortcut (Radosavovic et al., arXiv 2003.13678).

    The number of groups follows from the inner width and the width of a group. Whether the shortcut has a projection is
    fixed when the block is built; it never depends on the widths drawn.

    Args:
        in_channels, out_channels, kernel_sizes, expand_ratios, group_widths: ascending choices; every group width has
            to divide every inner width.
        stride: of the grouped convolution.
        projection: whether the shortcut is a 1x1 convolution with normalisation, or the identity.
        se_ratio: width of the squeeze-and-excitation relative to the block's input; 0 for none.
        dynamic: whether the block is part of a supernet.
        conv_cfg, norm_cfg: as in mmcv.
        drop_path_rate: probability of dropping the residual branch for a sample when training.
        init_cfg: as in MMEngine.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int], kernel_sizes: Sequence[int],
                 expand_ratios: Sequence[float], group_widths: Sequence[int], *, stride: int, projection: bool,
                 se_ratio: float, dynamic: bool, conv_cfg: Mapping[str, Any] | None, norm_cfg: Mapping[str, Any],
                 drop_path_rate: float = 0., init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        middle = middle_widths(out_channels, expand_ratios)
        common: dict[str, Any] = dict(dynamic=dynamic, conv_cfg=conv_cfg)
        self.conv1 = build_conv(in_channels[-1], middle, (1,), **common)
        self.bn1 = build_norm(norm_cfg, middle, dynamic=dynamic)
        self.conv2 = build_conv(middle[-1], middle, kernel_sizes, stride=stride, group_width=group_widths[-1],
                                **common)
        self.bn2 = build_norm(norm_cfg, middle, dynamic=dynamic)
        self.dynamic, self.se_ratio, self.middle = dynamic, se_ratio, middle[-1]
        self.se = None
        if se_ratio:
            squeezed = sorted({squeeze_width(width, se_ratio) for width in in_channels})
            self.se = SqueezeExcite(middle, squeezed, gate=nn.Sigmoid(), **common)
        self.conv3 = build_conv(middle[-1], out_channels, (1,), **common)
        self.bn3 = build_norm(norm_cfg, out_channels, dynamic=dynamic)
        self.downsample = nn.Sequential(
            build_conv(in_channels[-1], out_channels, (1,), stride=stride, **common),
            build_norm(norm_cfg, out_channels, dynamic=dynamic)) if projection else None
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def set_active(self, out_channel: int, kernel_size: int, expand_ratio: float, group_width: int) -> None:
        """Compute with these widths and this kernel from now on."""
        self.middle = middle_width(out_channel, expand_ratio)
        set_active(self.conv1, self.middle)
        set_active(self.conv2, self.middle, kernel_size, group_width)
        set_active(self.conv3, out_channel)
        if self.downsample is not None:
            set_active(self.downsample[0], out_channel)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, out_channel, H / stride, W / stride)``."""
        shortcut = x if self.downsample is None else self.downsample(x)
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        out = F.relu(self.bn2(self.conv2(out)), inplace=True)
        if self.se is not None:
            if self.dynamic:
                self.se.set_active(self.middle, squeeze_width(x.shape[1], self.se_ratio))
            out = self.se(out)
        out = self.drop_path(self.bn3(self.conv3(out)))
        return F.relu(out + shortcut, inplace=True)
