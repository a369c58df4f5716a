"""The first layers of a network."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmbignas.models.layers import (
    RELU,
    build_activation,
    build_conv,
    build_norm,
    middle_width,
    middle_widths,
    set_active,
)


class BigStem(nn.Sequential):
    """One convolution, or three (a deep stem, arXiv 1812.01187, section 4.2), each with normalisation and activation.

    Args:
        in_channels: channels of the image.
        out_channels, kernel_sizes: ascending choices.
        expand_ratios: choices of the deep stem's inner width relative to its output; a plain stem ignores them.
        stride: of the first convolution.
        deep: three convolutions instead of one.
        dynamic: whether the stem is part of a supernet.
        conv_cfg, norm_cfg, act_cfg: as in mmcv.
    """

    def __init__(self, in_channels: int, out_channels: Sequence[int], kernel_sizes: Sequence[int],
                 expand_ratios: Sequence[float], *, stride: int, deep: bool, dynamic: bool,
                 conv_cfg: Mapping[str, Any] | None, norm_cfg: Mapping[str, Any],
                 act_cfg: Mapping[str, Any] = RELU) -> None:
        middle = middle_widths(out_channels, expand_ratios)
        widths: list[Sequence[int]] = [middle, middle, out_channels] if deep else [out_channels]
        layers: list[nn.Module] = []
        for index, choices in enumerate(widths):
            layers += [
                build_conv(in_channels, choices, kernel_sizes, dynamic=dynamic, conv_cfg=conv_cfg,
                           stride=1 if index else stride),
                build_norm(norm_cfg, choices, dynamic=dynamic),
                build_activation(act_cfg),
            ]
            in_channels = choices[-1]
        super().__init__(*layers)

    def set_active(self, out_channel: int, kernel_size: int, expand_ratio: float, **others: float) -> None:
        """Compute with these widths and this kernel from now on; ``others`` are elements that a stem does not have."""
        convs = list(self)[::3]
        for conv in convs[:-1]:
            set_active(conv, middle_width(out_channel, expand_ratio), kernel_size)
        set_active(convs[-1], out_channel, kernel_size)
