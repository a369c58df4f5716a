"""ResNet with basic blocks, as a supernet or as one network."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule, ModuleList
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.errors import ConfigError
from mmbignas.models.blocks import BigBasicBlock, BigStem
from mmbignas.models.searchable import SearchableBlocks
from mmbignas.registry import MODELS
from mmbignas.space import ModuleSpace

NUM_STAGES = 5


@MODELS.register_module()
class BigResNet(SearchableBlocks, BaseModule):
    """ResNet-18/34 of any width, depth, kernel size and expand ratio.

    Stage 0 is the stem with the max-pool after it, stages 1 to 4 are ``layer1`` to ``layer4``. Each of ``out_channel``,
    ``depth``, ``kernel_size`` and ``expand_ratio`` is a list of five values, or
    ``dict(space=..., sample_strategy=...)``. With all of them lists, the network consists of plain torch layers; with
    a space, it is a supernet.

    The first block of each stage always has a projection shortcut, so that the graph is the same for all widths.
    Parameter names are those of MMDetection's ResNet, with ``stem.0``, ``stem.1``, ... for the stem.

    Args:
        out_channel: widths.
        depth: blocks; 1 in the stem.
        kernel_size: kernels of the stem and of the blocks' convolutions. Default: 3.
        expand_ratio: inner width of a block (of a deep stem) relative to its output. Default: 1.
        in_channels: channels of the image.
        strides: stride of the stem's first convolution and of each stage.
        out_indices: which of ``layer1`` (0) to ``layer4`` (3) to return.
        deep_stem: three 3x3 convolutions instead of one in the stem.
        conv_cfg, norm_cfg: as in mmcv; in a supernet ``BN`` stands for :class:`~mmbignas.ops.DynamicBatchNorm2d` and
            ``SyncBN`` for :class:`~mmbignas.ops.DynamicSyncBatchNorm2d`.
        zero_init_residual: start the last normalisation of each residual branch at gamma 0 (arXiv 1706.02677, 5.1).
        drop_path_rate: drop-path of the last block; it grows linearly from 0 at the first.
        init_cfg: as in MMEngine. Default: Kaiming.

    Raises:
        ConfigError: for a space that no subnet could be drawn from.
    """

    def __init__(self, out_channel: Any, depth: Any, kernel_size: Any = (3,) * NUM_STAGES,
                 expand_ratio: Any = (1,) * NUM_STAGES, in_channels: int = 3, strides: Sequence[int] = (2, 1, 2, 2, 2),
                 out_indices: Sequence[int] = (0, 1, 2, 3), deep_stem: bool = False,
                 conv_cfg: Mapping[str, Any] | None = None, norm_cfg: Mapping[str, Any] | None = None,
                 zero_init_residual: bool = True, drop_path_rate: float = 0., init_cfg: Any = None) -> None:
        if init_cfg is None:
            init_cfg = [dict(type='Kaiming', layer='Conv2d'),
                        dict(type='Constant', val=1, layer=['_BatchNorm', 'BatchNorm2d'])]
        super().__init__(init_cfg)
        if len(strides) != NUM_STAGES:
            raise ConfigError(f'BigResNet.strides has {len(strides)} values, but there are {NUM_STAGES} stages: '
                              f'{list(strides)}')
        if not out_indices or any(index not in range(NUM_STAGES - 1) for index in out_indices):
            raise ConfigError(f'BigResNet.out_indices: {list(out_indices)} is not allowed; allowed: indices from 0 to '
                              f'{NUM_STAGES - 2}')
        norm_cfg = norm_cfg or dict(type='BN')
        self.out_indices = tuple(out_indices)
        self.search_space = space = ModuleSpace(
            dict(depth=depth, out_channel=out_channel, kernel_size=kernel_size, expand_ratio=expand_ratio),
            NUM_STAGES, key='BigResNet')
        if space.choices('depth', 0) != (1,):
            raise ConfigError(f'BigResNet.depth: stage 0 is the stem, {list(space.choices("depth", 0))} is not '
                              'allowed; allowed: 1')
        if not deep_stem and len(space.choices('expand_ratio', 0)) > 1:
            raise ConfigError(f'BigResNet.expand_ratio: stage 0 is a plain stem, which has no inner width, '
                              f'{list(space.choices("expand_ratio", 0))} is not allowed; allowed: one value, or '
                              'deep_stem=True')
        common: dict[str, Any] = dict(dynamic=space.is_supernet, conv_cfg=conv_cfg, norm_cfg=norm_cfg)
        block_init = dict(type='Constant', val=0, override=dict(name='bn2')) if zero_init_residual else None
        self.stem = BigStem(in_channels, self._choices('out_channel', 0), self._choices('kernel_size', 0),
                            space.choices('expand_ratio', 0), stride=strides[0], deep=deep_stem, **common)
        total = sum(int(space.choices('depth', stage)[-1]) for stage in range(1, NUM_STAGES))
        block_count = 0
        for stage in range(1, NUM_STAGES):
            widths = self._choices('out_channel', stage)
            inputs, blocks = self._choices('out_channel', stage - 1), []
            for block in range(int(space.choices('depth', stage)[-1])):
                blocks.append(BigBasicBlock(
                    inputs, widths, self._choices('kernel_size', stage, block),
                    space.choices('expand_ratio', stage, block), stride=1 if block else strides[stage],
                    projection=block == 0, drop_path_rate=drop_path_rate * block_count / max(total - 1, 1),
                    init_cfg=block_init, **common))
                inputs = widths
                block_count += 1
            self.add_module(f'layer{stage}', ModuleList(blocks))

    def _choices(self, name: str, stage: int, block: int = 0) -> tuple[int, ...]:
        return tuple(int(value) for value in self.search_space.choices(name, stage, block))

    def searchable_blocks(self) -> Iterator[tuple[nn.Module, int, int]]:
        yield self.stem, 0, 0
        for stage in range(1, NUM_STAGES):
            for index, block in enumerate(getattr(self, f'layer{stage}')):
                yield block, stage, index

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the features of an image batch.

        Args:
            x: shape ``(N, in_channels, H, W)``.

        Returns:
            tuple: features of the stages in ``out_indices``, each ``(N, out_channel, H / stride, W / stride)``.
        """
        x = F.max_pool2d(self.stem(x), kernel_size=3, stride=2, padding=1)
        outputs = []
        for index in range(NUM_STAGES - 1):
            for block in getattr(self, f'layer{index + 1}'):
                if getattr(block, 'is_active', True):
                    x = block(x)
            if index in self.out_indices:
                outputs.append(x)
        return tuple(outputs)
