"""Hidden linear layers of a classifier's head."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from mmbignas.models.layers import build_activation, build_linear
from mmbignas.models.searchable import SearchableBlocks
from mmbignas.ops import DynamicLinear
from mmbignas.space import ModuleSpace


class LinearBlock(nn.Module):
    """A linear layer and an activation.

    Args:
        in_channels: greatest input width.
        out_channel: greatest output width.
        dynamic: whether the block is part of a supernet.
        act_cfg: as in mmcv.
    """

    def __init__(self, in_channels: int, out_channel: int, *, dynamic: bool, act_cfg: Mapping[str, Any]) -> None:
        super().__init__()
        self.fc = build_linear(in_channels, out_channel, dynamic=dynamic)
        self.act = build_activation(act_cfg)

    def set_active(self, out_channel: int) -> None:
        """Compute with this width from now on."""
        if isinstance(self.fc, DynamicLinear):
            self.fc.active_out_features = out_channel

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C)`` to ``(N, out_channel)``."""
        return self.act(self.fc(x))


class LinearTower(SearchableBlocks, nn.Sequential):
    """A chain of :class:`LinearBlock`; searchable, with one stage.

    Args:
        in_channels: greatest input width.
        depth, out_channel: elements of the search space, one stage each; ``out_channel`` may differ from block to
            block.
        act_cfg: as in mmcv.
        key: how messages name the tower.
    """

    def __init__(self, in_channels: int, *, depth: Any, out_channel: Any, act_cfg: Mapping[str, Any],
                 key: str) -> None:
        space = ModuleSpace(dict(depth=depth, out_channel=out_channel), num_stages=1, block_elements=('out_channel',),
                            key=key)
        blocks = []
        for block in range(int(space.choices('depth', 0)[-1])):
            width = int(space.choices('out_channel', 0, block)[-1])
            blocks.append(LinearBlock(in_channels, width, dynamic=space.is_supernet, act_cfg=act_cfg))
            in_channels = width
        super().__init__(*blocks)
        self.search_space = space
        self.out_channels = in_channels

    def searchable_blocks(self) -> Iterator[tuple[nn.Module, int, int]]:
        for index, block in enumerate(self):
            yield block, 0, index

    def forward(self, x: Tensor) -> Tensor:
        """Map ``(N, C)`` to ``(N, out_channel)``."""
        for block in self:
            if getattr(block, 'is_active', True):
                x = block(x)
        return x
