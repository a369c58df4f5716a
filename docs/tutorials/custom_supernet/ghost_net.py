"""A GhostNet (arXiv 1911.11907) with a slope for each channel, as a supernet or as one network."""
from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from mmengine.model import BaseModule
from mmengine.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas import ConfigError
from mmbignas.models import SearchableBlocks
from mmbignas.models.blocks import middle_width, middle_widths
from mmbignas.models.layers import build_conv, build_norm, set_active
from mmbignas.ops import DynamicLayer
from mmbignas.space import ModuleSpace

STEM, NUM_STAGES, BN = 16, 3, dict(type='BN')


class DynamicPReLU(nn.PReLU, DynamicLayer):
    """``nn.PReLU`` with a slope for each channel; an input of fewer channels uses the first slopes."""

    def forward(self, x: Tensor) -> Tensor:
        """Rectify ``x`` of shape ``(N, C, H, W)``; ``C`` decides how many slopes are in use."""
        return F.prelu(x, self.weight[:x.shape[1]])

    def plain_shapes(self, input_shape: Sequence[int]) -> dict[str, tuple[int, ...]]:
        return dict(weight=(input_shape[1],))


class GhostModule(nn.Module):
    """Channels from a 1x1 convolution, and beside each of them its ghost, from a cheap depthwise one."""

    def __init__(self, inputs: int, widths: Sequence[int], kernel_sizes: Sequence[int], dynamic: bool) -> None:
        super().__init__()
        halves = [width // 2 for width in widths]
        self.primary = build_conv(inputs, halves, (1,), dynamic=dynamic)
        self.bn1 = build_norm(BN, halves, dynamic=dynamic)
        self.act = (DynamicPReLU if dynamic else nn.PReLU)(halves[-1])
        self.cheap = build_conv(halves[-1], halves, kernel_sizes, dynamic=dynamic, group_width=1)
        self.bn2 = build_norm(BN, halves, dynamic=dynamic)

    def set_active(self, width: int, kernel_size: int) -> None:
        """Compute with this width and this kernel from now on."""
        set_active(self.primary, width // 2)
        set_active(self.cheap, width // 2, kernel_size, group_width=1)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, width, H, W)``."""
        x = self.act(self.bn1(self.primary(x)))
        ghosts = self.bn2(self.cheap(x))
        return torch.stack([x, ghosts], 2).flatten(1, 2)  # in turn, so the first channels are the same at any width


class GhostBlock(nn.Module):
    """Two ghost modules and a shortcut; the first block of a stage halves the image."""

    def __init__(self, inputs: int, widths: Sequence[int], kernel_sizes: Sequence[int],
                 expand_ratios: Sequence[float], first: bool, dynamic: bool) -> None:
        super().__init__()
        middle = middle_widths(widths, expand_ratios)
        self.expand = GhostModule(inputs, middle, kernel_sizes, dynamic)
        self.project = GhostModule(middle[-1], widths, kernel_sizes, dynamic)
        self.shortcut = nn.Sequential(build_conv(inputs, widths, (1,), dynamic=dynamic),
                                      build_norm(BN, widths, dynamic=dynamic)) if first else None

    def set_active(self, out_channel: int, kernel_size: int, expand_ratio: float) -> None:
        """Compute with these widths and these kernels from now on."""
        self.expand.set_active(middle_width(out_channel, expand_ratio), kernel_size)
        self.project.set_active(out_channel, kernel_size)
        if self.shortcut is not None:
            set_active(self.shortcut[0], out_channel)

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C, H, W)`` to ``(N, out_channel, H, W)``, or half of H and W."""
        if self.shortcut is None:
            return self.project(self.expand(x)) + x
        x = F.avg_pool2d(x, 2)
        return self.project(self.expand(x)) + self.shortcut(x)


@MODELS.register_module()
class GhostNet(SearchableBlocks, BaseModule):
    """A stem of a fixed width and three stages of blocks; each element is a list of three values, or a space."""

    def __init__(self, depth: Any, out_channel: Any, kernel_size: Any, expand_ratio: Any, in_channels: int = 1,
                 init_cfg: Any = None) -> None:
        super().__init__(init_cfg or dict(type='Kaiming', layer='Conv2d'))
        self.search_space = space = ModuleSpace(
            dict(depth=depth, out_channel=out_channel, kernel_size=kernel_size, expand_ratio=expand_ratio), NUM_STAGES,
            block_elements=('kernel_size', 'expand_ratio'), key='GhostNet')
        self.stem = nn.Sequential(nn.Conv2d(in_channels, STEM, 3, padding=1, bias=False), nn.BatchNorm2d(STEM),
                                  nn.PReLU(STEM))
        self.stages, inputs = nn.ModuleList(), STEM
        for stage in range(NUM_STAGES):
            widths = [int(width) for width in space.choices('out_channel', stage)]
            if any(width % 2 for width in widths):
                raise ConfigError(f'GhostNet.out_channel must be even widths in stage {stage}, got {widths}')
            blocks = nn.ModuleList()
            for block in range(int(space.choices('depth', stage)[-1])):
                kernel_sizes = [int(size) for size in space.choices('kernel_size', stage, block)]
                expand_ratios = space.choices('expand_ratio', stage, block)
                blocks.append(GhostBlock(inputs, widths, kernel_sizes, expand_ratios, first=block == 0,
                                         dynamic=space.is_supernet))
                inputs = widths[-1]
            self.stages.append(blocks)

    def searchable_blocks(self) -> Iterator[tuple[nn.Module, int, int]]:
        for stage, blocks in enumerate(self.stages):
            for index, block in enumerate(blocks):
                yield block, stage, index

    def forward(self, x: Tensor) -> tuple[Tensor]:
        """Map images ``(N, in_channels, H, W)`` to the features ``(N, out_channel, H / 8, W / 8)``."""
        x = self.stem(x)
        for block, _, _ in self.searchable_blocks():
            if getattr(block, 'is_active', True):
                x = block(x)
        return (x,)
