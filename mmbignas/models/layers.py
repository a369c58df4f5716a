"""Convolutions and normalisations that are dynamic in a supernet and plain torch layers in a subnet.

Every network of this package is one class. Whether it is a supernet is decided here and nowhere else: the same
``conv_cfg`` and ``norm_cfg`` name dynamic layers if ``dynamic`` is true, and plain ones otherwise.
"""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmcv.cnn import ConvModule, build_activation_layer, build_conv_layer, build_norm_layer
from mmdet.models.utils import make_divisible
from torch import nn

from mmbignas.ops import DynamicConv2d, DynamicLinear
from mmbignas.utils.configs import type_name
from mmbignas.utils.rules import Rule, must_be

DYNAMIC_NORMS = {
    'BN': 'DynamicBatchNorm2d',
    'BN2d': 'DynamicBatchNorm2d',
    'DynamicBatchNorm2d': 'DynamicBatchNorm2d',
    'SyncBN': 'DynamicSyncBatchNorm2d',
    'DynamicSyncBatchNorm2d': 'DynamicSyncBatchNorm2d',
    'SwitchableBatchNorm2d': 'SwitchableBatchNorm2d',
}
PLAIN_NORMS = {'DynamicBatchNorm2d': 'BN', 'SwitchableBatchNorm2d': 'BN', 'DynamicSyncBatchNorm2d': 'SyncBN'}
RELU = {'type': 'ReLU'}
TYPED = Rule(lambda value: isinstance(value, Mapping) and bool(value.get('type')), 'a dict with a type')
DYNAMIC_CONVS = ('Conv2d', 'Conv', 'DynamicConv2d')


def middle_width(out_channel: int, expand_ratio: float) -> int:
    """The width between a block's convolutions: ``out_channel * expand_ratio``, made divisible by 8."""
    return make_divisible(round(out_channel * expand_ratio), 8)


def middle_widths(out_channels: Sequence[int], expand_ratios: Sequence[float]) -> list[int]:
    """All widths between a block's convolutions, ascending."""
    return sorted({middle_width(out, ratio) for out in out_channels for ratio in expand_ratios})


def resolve_norm(norm_cfg: Mapping[str, Any] | None, widths: Sequence[int], dynamic: bool) -> dict[str, Any] | None:
    """The ``norm_cfg`` of one layer.

    Args:
        norm_cfg: as a user of MMDetection writes it, e.g. ``dict(type='BN')``; ``None`` for no normalisation.
        widths: all widths that its input may have.
        dynamic: for a supernet, else for a plain network.

    Raises:
        ConfigError: for a normalisation that has no type, or no dynamic counterpart.
    """
    if norm_cfg is None:
        return None
    TYPED.check(norm_cfg, 'norm_cfg')
    name = type_name(norm_cfg)
    if not dynamic:
        return {**norm_cfg, 'type': PLAIN_NORMS.get(name, norm_cfg['type'])}
    if name not in DYNAMIC_NORMS:
        raise must_be('norm_cfg.type', f'one of {", ".join(DYNAMIC_NORMS)} in a supernet', norm_cfg['type'])
    resolved = {**norm_cfg, 'type': f'mmbignas.{DYNAMIC_NORMS[name]}'}
    if name == 'SwitchableBatchNorm2d':
        resolved['widths'] = sorted(set(widths))
    return resolved


def resolve_conv(conv_cfg: Mapping[str, Any] | None, kernel_sizes: Sequence[int],
                 dynamic: bool) -> dict[str, Any] | None:
    """The ``conv_cfg`` of one layer; arguments as for :func:`resolve_norm`.

    Raises:
        ConfigError: for a convolution that has no type, or no dynamic counterpart.
    """
    TYPED.or_none().check(conv_cfg, 'conv_cfg')
    if not dynamic:
        return None if conv_cfg is None or type_name(conv_cfg) == 'DynamicConv2d' else dict(conv_cfg)
    if conv_cfg is not None and type_name(conv_cfg) not in DYNAMIC_CONVS:
        raise must_be('conv_cfg.type', f'one of {", ".join(DYNAMIC_CONVS)} in a supernet', conv_cfg['type'])
    return {**(conv_cfg or {}), 'type': 'mmbignas.DynamicConv2d', 'kernel_sizes': tuple(kernel_sizes)}


def build_conv(in_channels: int, out_channels: Sequence[int], kernel_sizes: Sequence[int], *, dynamic: bool,
               conv_cfg: Mapping[str, Any] | None = None, stride: int = 1, bias: bool = False,
               group_width: int | None = None) -> nn.Module:
    """A convolution with same padding.

    Args:
        in_channels: greatest input width.
        out_channels: ascending choices.
        kernel_sizes: ascending choices.
        dynamic: whether it can change its width and kernel.
        conv_cfg: as in mmcv.
        stride: as in mmcv.
        bias: as in mmcv.
        group_width: greatest width of a group of channels, for a convolution that is as wide as its input; ``None`` for
            one without groups.
    """
    kernel_size = kernel_sizes[-1]
    return build_conv_layer(resolve_conv(conv_cfg, kernel_sizes, dynamic), in_channels, out_channels[-1], kernel_size,
                            stride=stride, padding=kernel_size // 2, bias=bias,
                            groups=1 if group_width is None else in_channels // group_width)


def build_norm(norm_cfg: Mapping[str, Any], widths: Sequence[int], *, dynamic: bool) -> nn.Module:
    """A normalisation of inputs whose ascending widths are ``widths``."""
    return build_norm_layer(resolve_norm(norm_cfg, widths, dynamic), max(widths))[1]


def build_activation(act_cfg: Mapping[str, Any]) -> nn.Module:
    """An activation that works in place, where it can; ``act_cfg`` as in mmcv."""
    layer = build_activation_layer(dict(act_cfg))
    if hasattr(layer, 'inplace'):
        layer.inplace = True
    return layer


class BigConvModule(ConvModule):
    """mmcv's ``ConvModule`` (convolution, normalisation, activation) as a block of a searchable module."""

    def set_active(self, out_channel: int, kernel_size: int) -> None:
        """Compute with this width and this kernel from now on."""
        set_active(self.conv, out_channel, kernel_size)


def build_conv_module(in_channels: int, out_channels: Sequence[int], kernel_sizes: Sequence[int], *, dynamic: bool,
                      conv_cfg: Mapping[str, Any] | None, norm_cfg: Mapping[str, Any] | None,
                      act_cfg: Mapping[str, Any] | None, stride: int = 1) -> BigConvModule:
    """A convolution with normalisation and activation; arguments as for :func:`build_conv`."""
    kernel_size = kernel_sizes[-1]
    return BigConvModule(in_channels, out_channels[-1], kernel_size, stride=stride, padding=kernel_size // 2,
                         conv_cfg=resolve_conv(conv_cfg, kernel_sizes, dynamic),
                         norm_cfg=resolve_norm(norm_cfg, out_channels, dynamic), act_cfg=act_cfg)


def set_active(conv: nn.Module, out_channel: int | None = None, kernel_size: int | None = None,
               group_width: int | None = None) -> None:
    """Set width, kernel and groups of a convolution; a plain one has only one of each and stays as it is.

    Args:
        conv: a layer from :func:`build_conv`.
        out_channel: output channels; ``None`` leaves them.
        kernel_size: kernel size; ``None`` leaves it.
        group_width: width of a group of channels; ``None`` leaves the number of groups.
    """
    if isinstance(conv, DynamicConv2d):
        if out_channel is not None:
            conv.active_out_channels = out_channel
        if kernel_size is not None:
            conv.active_kernel_size = kernel_size
        if group_width is not None:
            conv.active_groups = conv.active_out_channels // group_width


def build_linear(in_features: int, out_features: int, *, dynamic: bool) -> nn.Linear:
    """A linear layer of these greatest widths; ``dynamic`` if it can change them."""
    return (DynamicLinear if dynamic else nn.Linear)(in_features, out_features)
