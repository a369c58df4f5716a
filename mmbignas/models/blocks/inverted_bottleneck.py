"""The block of mobile networks."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn.bricks import DropPath
from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.models.blocks.squeeze_excite import SqueezeExcite
from mmbignas.models.layers import build_activation, build_conv, build_norm, middle_width, middle_widths, set_active


class BigInvertedBottleneck(BaseModule):
    """A 1x1, a depthwise and a 1x1 convolution, and a shortcut (arXiv 1801.04381, 1905.02244).

    The inner width is that of the input times the expand ratio, made divisible by 8. If 1 is the only
    expand ratio, there is no first convolution.

    The shortcut never depends on the widths drawn: either it is an average pool, where there is a stride, and a 1x1
    convolution, as in AttentiveNAS (arXiv 2011.09011), or it adds the channels that input and output have in common,
    which is the identity where they are equally wide.

    Args:
        in_channels, out_channels, kernel_sizes, expand_ratios: ascending choices.
        stride: of the depthwise convolution.
        projection: whether the shortcut has a convolution; needed for a stride.
        se_ratio: width of the squeeze-and-excitation relative to the inner width, made divisible by 8; 0 for none.
        dynamic: whether the block is part of a supernet.
        conv_cfg, norm_cfg, act_cfg: as in mmcv.
        drop_path_rate: probability of dropping the residual branch for a sample when training.
        init_cfg: as in MMEngine.
    """

    def __init__(self, in_channels: Sequence[int], out_channels: Sequence[int], kernel_sizes: Sequence[int],
                 expand_ratios: Sequence[float], *, stride: int, projection: bool, se_ratio: float, dynamic: bool,
                 conv_cfg: Mapping[str, Any] | None, norm_cfg: Mapping[str, Any], act_cfg: Mapping[str, Any],
                 drop_path_rate: float = 0., init_cfg: Any = None) -> None:
        super().__init__(init_cfg)
        self.dynamic, self.expands = dynamic, tuple(expand_ratios) != (1,)
        self.out_channel, self.expand_ratio = out_channels[-1], expand_ratios[-1]
        self.surplus = out_channels[-1] - in_channels[-1]
        middle = middle_widths(in_channels, expand_ratios) if self.expands else list(in_channels)
        common: dict[str, Any] = dict(dynamic=dynamic, conv_cfg=conv_cfg)
        if self.expands:
            self.conv1 = build_conv(in_channels[-1], middle, (1,), **common)
            self.bn1 = build_norm(norm_cfg, middle, dynamic=dynamic)
        self.conv2 = build_conv(middle[-1], middle, kernel_sizes, stride=stride, group_width=1, **common)
        self.bn2 = build_norm(norm_cfg, middle, dynamic=dynamic)
        self.se_ratio, self.se = se_ratio, None
        if se_ratio:
            self.se = SqueezeExcite(middle, middle_widths(middle, (se_ratio,)), gate=nn.Hardsigmoid(), **common)
        self.conv3 = build_conv(middle[-1], out_channels, (1,), **common)
        self.bn3 = build_norm(norm_cfg, out_channels, dynamic=dynamic)
        self.act = build_activation(act_cfg)
        self.stride = stride
        self.shortcut = build_conv(in_channels[-1], out_channels, (1,), **common) if projection else None
        self.drop_path = DropPath(drop_path_rate) if drop_path_rate else nn.Identity()

    def set_active(self, out_channel: int, kernel_size: int, expand_ratio: float) -> None:
        """Compute with these widths and this kernel from now on; the inner width follows from the input."""
        self.out_channel, self.expand_ratio = out_channel, expand_ratio
        set_active(self.conv2, kernel_size=kernel_size)
        set_active(self.conv3, out_channel)
        if self.shortcut is not None:
            set_active(self.shortcut, out_channel)

    def _follow(self, width: int) -> None:
        """Take the widths that follow from the input's."""
        middle = middle_width(width, self.expand_ratio) if self.expands else width
        if self.expands:
            set_active(self.conv1, middle)
        set_active(self.conv2, middle, group_width=1)
        if self.se is not None:
            self.se.set_active(middle, middle_width(middle, self.se_ratio))
        self.surplus = self.out_channel - width

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, out_channel, H / stride, W / stride)``."""
        if self.dynamic:
            self._follow(x.shape[1])
        out = self.act(self.bn1(self.conv1(x))) if self.expands else x
        out = self.act(self.bn2(self.conv2(out)))
        if self.se is not None:
            out = self.se(out)
        return self.drop_path(self.bn3(self.conv3(out))) + self._shortcut(x)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.shortcut is not None:
            return self.shortcut(x if self.stride == 1 else F.avg_pool2d(x, self.stride, ceil_mode=True))
        return F.pad(x, (0, 0, 0, 0, 0, self.surplus)) if self.surplus else x


class BigFinalConv(nn.Sequential):
    """The 1x1 convolution after the last block; as wide as its input times a fixed ratio, so it has no settings.

    Args:
        in_channels: ascending choices.
        expand_ratio: width relative to the input's.
        dynamic: whether it is part of a supernet.
        conv_cfg, norm_cfg, act_cfg: as in mmcv.
    """

    def __init__(self, in_channels: Sequence[int], expand_ratio: float, *, dynamic: bool,
                 conv_cfg: Mapping[str, Any] | None, norm_cfg: Mapping[str, Any], act_cfg: Mapping[str, Any]) -> None:
        widths = middle_widths(in_channels, (expand_ratio,))
        super().__init__(build_conv(in_channels[-1], widths, (1,), dynamic=dynamic, conv_cfg=conv_cfg),
                         build_norm(norm_cfg, widths, dynamic=dynamic), build_activation(act_cfg))
        self.dynamic, self.expand_ratio = dynamic, expand_ratio

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, C * expand_ratio, H, W)``."""
        if self.dynamic:
            set_active(self[0], middle_width(x.shape[1], self.expand_ratio))
        return super().forward(x)
