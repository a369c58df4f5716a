"""Widths that follow from others."""
from __future__ import annotations

from collections.abc import Sequence

from mmdet.models.utils import make_divisible


def middle_width(out_channel: int, expand_ratio: float) -> int:
    """The width between a block's convolutions: ``out_channel * expand_ratio``, made divisible by 8."""
    return make_divisible(round(out_channel * expand_ratio), 8)


def middle_widths(out_channels: Sequence[int], expand_ratios: Sequence[float]) -> list[int]:
    """All widths between a block's convolutions, ascending."""
    return sorted({middle_width(out, ratio) for out in out_channels for ratio in expand_ratios})
