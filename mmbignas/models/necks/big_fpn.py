"""Feature pyramid network, as a supernet or as one network."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from mmengine.model import BaseModule
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.models.layers import build_conv_module
from mmbignas.models.searchable import SearchableBlocks
from mmbignas.registry import MODELS
from mmbignas.space import ModuleSpace
from mmbignas.utils.rules import Rule, check_options, integer, must_be, one_of


@MODELS.register_module()
class BigFPN(SearchableBlocks, BaseModule):
    """FPN (arXiv 1612.03144) with normalisation and any width and kernel size.

    Stage 0 is all lateral convolutions, stage 1 all output convolutions and the stride-2 convolutions of the extra
    levels. ``out_channel`` and ``kernel_size`` are lists of two values, or ``dict(space=..., sample_strategy=...)``;
    the kernel may differ from level to level. Parameter names are those of MMDetection's FPN.

    Args:
        in_channels: greatest width of each input.
        out_channel: widths of the lateral and of the output convolutions.
        num_outs: number of output levels; each one beyond ``len(in_channels)`` comes from a stride-2 convolution.
        kernel_size: kernels of the lateral and of the output convolutions. Default: ``(1, 3)``.
        depth: ``[len(in_channels), num_outs]``, the number of convolutions of each stage; may be left out.
        add_extra_convs: what the first extra level is made from: ``on_output`` (the last output) or ``on_input`` (the
            last input).
        conv_cfg, norm_cfg, act_cfg: as in mmcv; see :class:`~mmbignas.models.BigResNet`.
        init_cfg: as in MMEngine.

    Raises:
        ConfigError: for a space that no subnet could be drawn from.
    """

    def __init__(self, in_channels: Sequence[int], out_channel: Any, num_outs: int, kernel_size: Any = (1, 3),
                 depth: Any = None, add_extra_convs: str = 'on_output', conv_cfg: Mapping[str, Any] | None = None,
                 norm_cfg: Mapping[str, Any] | None = None, act_cfg: Mapping[str, Any] | None = None,
                 init_cfg: Any = None) -> None:
        super().__init__(init_cfg or dict(type='Xavier', layer='Conv2d', distribution='uniform'))
        counts = [len(in_channels), num_outs]
        check_options('BigFPN', locals(), dict(
            num_outs=Rule(integer(counts[0]).holds, f'an integer >= {counts[0]}, the number of inputs'),
            add_extra_convs=one_of(('on_output', 'on_input'))))
        if depth is not None and (not isinstance(depth, Sequence) or list(depth) != counts):
            raise must_be('BigFPN.depth', f'{counts}, the number of inputs and of outputs', depth)
        self.add_extra_convs = add_extra_convs
        self.search_space = space = ModuleSpace(
            dict(depth=counts, out_channel=out_channel, kernel_size=kernel_size), 2, block_elements=('kernel_size', ),
            key='BigFPN')
        widths = [tuple(int(value) for value in space.choices('out_channel', stage)) for stage in range(2)]
        common: dict[str, Any] = dict(dynamic=space.is_supernet, conv_cfg=conv_cfg, norm_cfg=norm_cfg, act_cfg=act_cfg)
        # Not MMEngine's ModuleList, which would let mmcv's ConvModule initialise itself once more, over the init_cfg.
        self.lateral_convs = nn.ModuleList(
            build_conv_module(channels, widths[0], self._kernels(0, index), **common)
            for index, channels in enumerate(in_channels))
        self.fpn_convs = nn.ModuleList()
        for index in range(num_outs):
            extra = index - len(in_channels)
            channels = widths[0][-1] if extra < 0 else widths[1][-1]
            if extra == 0 and add_extra_convs == 'on_input':
                channels = in_channels[-1]
            self.fpn_convs.append(build_conv_module(channels, widths[1], self._kernels(1, index),
                                                    stride=1 if extra < 0 else 2, **common))

    def _kernels(self, stage: int, block: int) -> tuple[int, ...]:
        return tuple(int(value) for value in self.search_space.choices('kernel_size', stage, block))

    def searchable_blocks(self) -> Iterator[tuple[nn.Module, int, int]]:
        for stage, convs in enumerate((self.lateral_convs, self.fpn_convs)):
            for index, conv in enumerate(convs):
                yield conv, stage, index

    def forward(self, inputs: Sequence[Tensor]) -> tuple[Tensor, ...]:
        """Compute the pyramid.

        Args:
            inputs: one tensor ``(N, C, H, W)`` per level, from fine to coarse.

        Returns:
            tuple: ``num_outs`` tensors of the output width, from fine to coarse.
        """
        laterals = [conv(x) for conv, x in zip(self.lateral_convs, inputs, strict=True)]
        for index in range(len(laterals) - 1, 0, -1):
            size = laterals[index - 1].shape[2:]
            laterals[index - 1] = laterals[index - 1] + F.interpolate(laterals[index], size=size, mode='nearest')
        outputs = [conv(x) for conv, x in zip(self.fpn_convs, laterals)]
        source = inputs[-1] if self.add_extra_convs == 'on_input' else outputs[-1]
        for index, conv in enumerate(list(self.fpn_convs)[len(laterals):]):
            source = conv(F.relu(source) if index else source)
            outputs.append(source)
        return tuple(outputs)
