"""A mobile network of inverted bottlenecks, as a supernet or as one network."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmbignas.models.backbones.staged_backbone import StagedBackbone
from mmbignas.models.blocks import BigFinalConv, BigInvertedBottleneck, BigStem
from mmbignas.registry import MODELS
from mmbignas.utils.rules import boolean, check_options, list_of, must_be, number

NUM_STAGES = 8
RULES = dict(
    se_ratio=list_of(number(0, 1), 'a list of 7 numbers from 0 (none) to 1, one per stage after the stem', 7, 7),
    projection=list_of(boolean(), 'a list of 7 of True and False, one per stage after the stem', 7, 7),
    final_expand_ratio=number(0))


@MODELS.register_module()
class BigMobileNet(StagedBackbone):
    """The mobile network that BigNAS and AttentiveNAS search in (arXiv 2003.11142, table 1; 2011.09011, table 5).

    Stage 0 is the stem, stages 1 to 7 are ``layer1`` to ``layer7``; after them comes a 1x1 convolution. Each of
    ``out_channel``, ``depth``, ``kernel_size`` and ``expand_ratio`` is a list of eight values, or
    ``dict(space=..., sample_strategy=...)``; the stem's ``expand_ratio`` is not used. If all of them are lists, the
    network consists of plain torch layers; with a space, it is a supernet. Stages whose only expand ratio is 1 have no
    expansion.

    Args:
        out_channel: widths.
        depth: blocks; 1 in the stem.
        kernel_size: kernels of the stem and of the depthwise convolutions. Default: 3.
        expand_ratio: inner width of a block relative to its input. Default: 1 in stage 1, then 6.
        se_ratio: width of the squeeze-and-excitation relative to the inner width in each stage; 0 for none. One value
            for each of stages 1 to 7. Default: 1/4 in stages 3, 5, 6 and 7, as in MobileNetV3.
        projection: for each of stages 1 to 7, whether the first block's shortcut has a 1x1 convolution. Without it, the
            channels that input and output have in common are added. Default: all but stage 1.
        final_expand_ratio: width of the last convolution relative to its input; 0 for none.
        in_channels: channels of the image.
        strides: stride of the stem and of each stage.
        out_indices: which of ``layer1`` (0) to ``layer7`` (6) to return; the last one after the last convolution.
        conv_cfg, norm_cfg, zero_init_residual, drop_path_rate, with_cp, init_cfg: see
            :class:`~mmbignas.models.BigResNet`;
            ``conv_cfg=dict(type='DynamicConv2d', kernel_transform=True)`` learns the smaller kernels' transforms.
        act_cfg: as in mmcv. Default: swish, which torch calls SiLU.

    Raises:
        ConfigError: for a space that no subnet could be drawn from, or a value that does not fit.
    """

    def __init__(self, out_channel: Any, depth: Any, kernel_size: Any = (3,) * NUM_STAGES,
                 expand_ratio: Any = (1, 1, *(6,) * (NUM_STAGES - 2)),
                 se_ratio: Sequence[float] = (0, 0, .25, 0, .25, .25, .25),
                 projection: Sequence[bool] = (False, *(True,) * (NUM_STAGES - 2)), final_expand_ratio: float = 6,
                 in_channels: int = 3, strides: Sequence[int] = (2, 1, 2, 2, 2, 1, 2, 1),
                 out_indices: Sequence[int] = (6,), conv_cfg: Mapping[str, Any] | None = None,
                 norm_cfg: Mapping[str, Any] | None = None, act_cfg: Mapping[str, Any] | None = None,
                 zero_init_residual: bool = True, drop_path_rate: float = 0., with_cp: bool = False,
                 init_cfg: Any = None) -> None:
        super().__init__(
            dict(depth=depth, out_channel=out_channel, kernel_size=kernel_size, expand_ratio=expand_ratio), strides,
            NUM_STAGES, out_indices, ('expand_ratio',), with_cp, init_cfg)
        space, choices = self.search_space, self._choices
        check_options('BigMobileNet', locals(), RULES)
        self._check(projection)
        common: dict[str, Any] = dict(dynamic=space.is_supernet, conv_cfg=conv_cfg,
                                      norm_cfg=norm_cfg or dict(type='BN'), act_cfg=act_cfg or dict(type='SiLU'))
        block_init = dict(type='Constant', val=0, override=dict(name='bn3')) if zero_init_residual else None
        self.stem = BigStem(in_channels, choices('out_channel', 0), choices('kernel_size', 0), (1,),
                            stride=strides[0], deep=False, **common)

        def build(stage: int, block: int, inputs: Sequence[int], rate: float) -> nn.Module:
            return BigInvertedBottleneck(
                inputs, choices('out_channel', stage), choices('kernel_size', stage, block),
                space.choices('expand_ratio', stage, block), stride=1 if block else strides[stage],
                projection=block == 0 and bool(projection[stage - 1]), se_ratio=se_ratio[stage - 1],
                drop_path_rate=rate, init_cfg=block_init, **common)

        self._add_stages(build, drop_path_rate)
        self.final_conv = None
        if final_expand_ratio and NUM_STAGES - 2 in out_indices:
            self.final_conv = BigFinalConv(choices('out_channel', NUM_STAGES - 1), final_expand_ratio, **common)

    def _check(self, projection: Sequence[bool]) -> None:
        for stage in range(1, NUM_STAGES):
            if self.strides[stage] != 1 and not projection[stage - 1]:
                raise must_be('BigMobileNet.projection', f'True in stage {stage}, as its stride is '
                              f'{self.strides[stage]}', False)
            for block in range(self._choices('depth', stage)[-1]):
                ratios = self.search_space.choices('expand_ratio', stage, block)
                if 1 in ratios and len(ratios) > 1:
                    raise must_be('BigMobileNet.expand_ratio', '1 alone (no expansion) or other choices than 1 in '
                                  f'stage {stage}', list(ratios))

    def forward(self, x: Tensor) -> tuple[Tensor, ...]:
        """Compute the features of images; those of the last stage are ``final_expand_ratio`` times as wide."""
        outputs = super().forward(x)
        return outputs if self.final_conv is None else (*outputs[:-1], self.final_conv(outputs[-1]))
