"""RegNet, as a supernet or as one network."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import nn

from mmbignas.models.backbones.staged_backbone import StagedBackbone
from mmbignas.models.blocks import BigRegNetBottleneck, BigStem, middle_widths
from mmbignas.registry import MODELS
from mmbignas.utils.rules import must_be, number

NUM_STAGES = 5


@MODELS.register_module()
class BigRegNet(StagedBackbone):
    """RegNetX, or RegNetY with ``se_ratio``, of any width, depth, group width, kernel size and expand ratio.

    Stage 0 is the stem, stages 1 to 4 are ``layer1`` to ``layer4``. Each of ``out_channel``, ``depth``,
    ``group_width``, ``kernel_size`` and ``expand_ratio`` is a list of five values, or
    ``dict(space=..., sample_strategy=...)``; the stem does not use its ``group_width`` and ``expand_ratio``. If all
    of them are lists, the network consists of plain torch layers; with a space, it is a supernet.

    RegNetX-800M (arXiv 2003.13678, table 6) is ``out_channel=[32, 64, 128, 288, 672], depth=[1, 1, 3, 7, 5]``. The
    first block of each stage always has a projection shortcut, so that the graph is the same for all widths. Parameter
    names are those of MMPretrain's RegNet, with ``stem.0`` and ``stem.1`` for the stem.

    Args:
        out_channel: widths.
        depth: blocks; 1 in the stem.
        group_width: channels per group of the grouped convolutions. Default: 16.
        kernel_size: kernels of the stem and of the grouped convolutions. Default: 3.
        expand_ratio: inner width of a block relative to its output. Default: 1.
        se_ratio: width of the squeeze-and-excitation relative to a block's input, 1/4 in RegNetY; 0 for none (RegNetX).
        in_channels: channels of the image.
        strides: stride of the stem and of each stage.
        out_indices: which of ``layer1`` (0) to ``layer4`` (3) to return.
        conv_cfg, norm_cfg, zero_init_residual, drop_path_rate, with_cp, init_cfg: see
            :class:`~mmbignas.models.BigResNet`.

    Raises:
        ConfigError: for a space that no subnet could be drawn from, or in which a group width does not divide an inner
            width.
    """

    def __init__(self, out_channel: Any, depth: Any, group_width: Any = (16,) * NUM_STAGES,
                 kernel_size: Any = (3,) * NUM_STAGES, expand_ratio: Any = (1,) * NUM_STAGES, se_ratio: float = 0.,
                 in_channels: int = 3, strides: Sequence[int] = (2, 2, 2, 2, 2), out_indices: Sequence[int] = (3,),
                 conv_cfg: Mapping[str, Any] | None = None, norm_cfg: Mapping[str, Any] | None = None,
                 zero_init_residual: bool = True, drop_path_rate: float = 0., with_cp: bool = False,
                 init_cfg: Any = None) -> None:
        super().__init__(
            dict(depth=depth, out_channel=out_channel, group_width=group_width, kernel_size=kernel_size,
                 expand_ratio=expand_ratio), strides, NUM_STAGES, out_indices, ('group_width', 'expand_ratio'),
            with_cp, init_cfg)
        number(0, 1).check(se_ratio, 'BigRegNet.se_ratio')
        space, choices = self.search_space, self._choices
        common: dict[str, Any] = dict(dynamic=space.is_supernet, conv_cfg=conv_cfg,
                                      norm_cfg=norm_cfg or dict(type='BN'))
        block_init = dict(type='Constant', val=0, override=dict(name='bn3')) if zero_init_residual else None
        self.stem = BigStem(in_channels, choices('out_channel', 0), choices('kernel_size', 0), (1,),
                            stride=strides[0], deep=False, **common)

        def build(stage: int, block: int, inputs: Sequence[int], rate: float) -> nn.Module:
            self._check_groups(stage, block)
            return BigRegNetBottleneck(
                inputs, choices('out_channel', stage), choices('kernel_size', stage, block),
                space.choices('expand_ratio', stage, block), choices('group_width', stage, block),
                stride=1 if block else strides[stage], projection=block == 0, se_ratio=se_ratio, drop_path_rate=rate,
                init_cfg=block_init, **common)

        self._add_stages(build, drop_path_rate)

    def _check_groups(self, stage: int, block: int) -> None:
        widths = middle_widths(self._choices('out_channel', stage),
                               self.search_space.choices('expand_ratio', stage, block))
        for group_width in self._choices('group_width', stage, block):
            if any(width % group_width for width in widths):
                raise must_be('BigRegNet.group_width', f'a divisor of the inner widths (out_channel * expand_ratio) '
                              f'{widths} in stage {stage}', group_width)
