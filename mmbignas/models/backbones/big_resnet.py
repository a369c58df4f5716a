"""ResNet with basic blocks, as a supernet or as one network."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.models.backbones.staged_backbone import StagedBackbone
from mmbignas.models.blocks import BigBasicBlock, BigStem
from mmbignas.registry import MODELS

NUM_STAGES = 5


@MODELS.register_module()
class BigResNet(StagedBackbone):
    """ResNet-18/34 of any width, depth, kernel size and expand ratio.

    Stage 0 is the stem with the max-pool after it, stages 1 to 4 are ``layer1`` to ``layer4``. Each of ``out_channel``,
    ``depth``, ``kernel_size`` and ``expand_ratio`` is a list of five values, or
    ``dict(space=..., sample_strategy=...)``. If all of them are lists, the network consists of plain torch layers; with
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
        with_cp: activation checkpointing: stem and blocks keep only their inputs for the backward pass, which computes
            them once more. It trades time for memory, with the same gradients and running statistics.
        init_cfg: as in MMEngine. Default: Kaiming.

    Raises:
        ConfigError: for a space that no subnet could be drawn from.
    """

    def __init__(self, out_channel: Any, depth: Any, kernel_size: Any = (3,) * NUM_STAGES,
                 expand_ratio: Any = (1,) * NUM_STAGES, in_channels: int = 3, strides: Sequence[int] = (2, 1, 2, 2, 2),
                 out_indices: Sequence[int] = (0, 1, 2, 3), deep_stem: bool = False,
                 conv_cfg: Mapping[str, Any] | None = None, norm_cfg: Mapping[str, Any] | None = None,
                 zero_init_residual: bool = True, drop_path_rate: float = 0., with_cp: bool = False,
                 init_cfg: Any = None) -> None:
        super().__init__(
            dict(depth=depth, out_channel=out_channel, kernel_size=kernel_size, expand_ratio=expand_ratio), strides,
            NUM_STAGES, out_indices, () if deep_stem else ('expand_ratio',), with_cp, init_cfg)
        space, choices = self.search_space, self._choices
        common: dict[str, Any] = dict(dynamic=space.is_supernet, conv_cfg=conv_cfg,
                                      norm_cfg=norm_cfg or dict(type='BN'))
        block_init = dict(type='Constant', val=0, override=dict(name='bn2')) if zero_init_residual else None
        self.stem = BigStem(in_channels, choices('out_channel', 0), choices('kernel_size', 0),
                            space.choices('expand_ratio', 0), stride=strides[0], deep=deep_stem, **common)

        def build(stage: int, block: int, inputs: Sequence[int], rate: float) -> nn.Module:
            return BigBasicBlock(
                inputs, choices('out_channel', stage), choices('kernel_size', stage, block),
                space.choices('expand_ratio', stage, block), stride=1 if block else strides[stage],
                projection=block == 0, drop_path_rate=rate, init_cfg=block_init, **common)

        self._add_stages(build, drop_path_rate)

    @property
    def total_stride(self) -> int:
        return 2 * super().total_stride  # the max-pool's

    def _after_stem(self, x: Tensor) -> Tensor:
        return F.max_pool2d(x, kernel_size=3, stride=2, padding=1)
