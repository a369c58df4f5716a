"""Chains of layers of any depth and width, which heads are made of."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.models.layers import build_activation, build_conv, build_linear, build_norm, set_active
from mmbignas.models.searchable import SearchableBlocks
from mmbignas.ops import DynamicLinear, shared_weights
from mmbignas.space import ModuleSpace


class Tower(SearchableBlocks, nn.Sequential):
    """A chain of blocks; searchable, with one stage."""

    def searchable_blocks(self) -> Iterator[tuple[nn.Module, int, int]]:
        for index, block in enumerate(self):
            yield block, 0, index

    def forward(self, x: Any) -> Any:
        """Compute the blocks that the current subnet has, one after the other."""
        for block in self:
            if getattr(block, 'is_active', True):
                x = block(x)
        return x


class TowerLayer(nn.Module):
    """One convolution for all pyramid levels, one normalisation per level, ReLU.

    Args:
        in_channels: greatest input width.
        out_channels, kernel_sizes: ascending choices.
        num_levels: number of pyramid levels.
        dynamic: whether the layer is part of a supernet.
        conv_cfg, norm_cfg: as in mmcv; without ``norm_cfg`` the convolution has a bias.
    """

    def __init__(self, in_channels: int, out_channels: Sequence[int], kernel_sizes: Sequence[int], num_levels: int, *,
                 dynamic: bool, conv_cfg: Mapping[str, Any] | None, norm_cfg: Mapping[str, Any] | None) -> None:
        super().__init__()
        self.conv = build_conv(in_channels, out_channels, kernel_sizes, dynamic=dynamic, conv_cfg=conv_cfg,
                               bias=norm_cfg is None)
        self.bns = nn.ModuleList(
            nn.Identity() if norm_cfg is None else build_norm(norm_cfg, out_channels, dynamic=dynamic)
            for _ in range(num_levels))

    def set_active(self, out_channel: int, kernel_size: int) -> None:
        """Compute with this width and this kernel from now on."""
        set_active(self.conv, out_channel, kernel_size)

    def forward(self, feats: Sequence[Tensor]) -> list[Tensor]:
        """Map one tensor ``(N, C, H, W)`` per level to ``(N, out_channel, H, W)`` per level."""
        with shared_weights(self.conv):
            return [F.relu(bn(self.conv(x)), inplace=True) for x, bn in zip(feats, self.bns, strict=True)]


class ConvTower(Tower):
    """The convolutions of a dense head: a chain of :class:`TowerLayer`.

    Args:
        in_channels: greatest input width.
        num_levels: number of pyramid levels.
        depth, out_channel, kernel_size: elements of the search space, one stage each. ``out_channel`` and
            ``kernel_size`` may differ from block to block.
        conv_cfg, norm_cfg: as in mmcv.
        key: how messages name the tower.

    Attributes:
        search_space: the tower's :class:`~mmbignas.space.ModuleSpace`; ``None`` in a tower that follows another.
    """

    def __init__(self, in_channels: int, num_levels: int, *, depth: Any, out_channel: Any, kernel_size: Any,
                 conv_cfg: Mapping[str, Any] | None, norm_cfg: Mapping[str, Any] | None, key: str) -> None:
        space = ModuleSpace(dict(depth=depth, out_channel=out_channel, kernel_size=kernel_size), num_stages=1,
                            block_elements=('out_channel', 'kernel_size'), key=key)
        layers = []
        for block in range(int(space.choices('depth', 0)[-1])):
            widths, kernels = (tuple(int(value) for value in space.choices(name, 0, block))
                               for name in ('out_channel', 'kernel_size'))
            layers.append(TowerLayer(in_channels, widths, kernels, num_levels, dynamic=space.is_supernet,
                                     conv_cfg=conv_cfg, norm_cfg=norm_cfg))
            in_channels = widths[-1]
        super().__init__(*layers)
        self.search_space = space
        self.out_channels = in_channels
        self.is_supernet = space.is_supernet
        self._followers: list[ConvTower] = []

    def lead(self, follower: ConvTower) -> None:
        """Let another tower take this one's settings; it has no space of its own any more."""
        follower.search_space = None  # type: ignore[assignment]
        self._followers.append(follower)

    def searchable_blocks(self) -> Iterator[tuple[nn.Module, int, int]]:
        yield from super().searchable_blocks()
        for tower in self._followers:
            yield from tower.searchable_blocks()


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


class LinearTower(Tower):
    """The hidden layers of a classifier: a chain of :class:`LinearBlock`.

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
