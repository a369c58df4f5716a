"""Pooling, resizing and other operations that leave batch and channels as they are."""
from __future__ import annotations

from typing import Any

from mmbignas.elastic.axes import Atom, Fix, Node, Prod, Sum, divide
from mmbignas.elastic.rules.registry import rule
from mmbignas.elastic.tracer import Axes, Call

SPATIAL = 2  # trailing axes that change


@rule('aten::max_pool2d_with_indices', 'aten::avg_pool2d', 'aten::adaptive_avg_pool2d', 'aten::_adaptive_avg_pool2d',
      'aten::adaptive_max_pool2d', 'aten::max_pool2d', 'aten::upsample_nearest2d', 'aten::upsample_bilinear2d',
      'aten::upsample_bicubic2d', 'aten::_upsample_nearest_exact2d', 'aten::_upsample_bilinear2d_aa',
      'aten::_upsample_bicubic2d_aa', 'aten::reflection_pad2d', 'aten::replication_pad2d')
def spatial(call: Call) -> Axes | list[Axes]:
    """Another height and width."""
    axes = call.axes(call.inputs()[0])
    call.freeze(*axes[-SPATIAL:])

    def like(made: Any) -> Axes:
        return [*axes[:-SPATIAL], *(Fix(size) for size in made.shape[-SPATIAL:])]

    return [like(made) for made in call.output] if isinstance(call.output, (tuple, list)) else like(call.output)


@rule('aten::upsample_nearest1d', 'aten::upsample_linear1d', 'aten::avg_pool1d', 'aten::reflection_pad1d')
def along(call: Call) -> Axes:
    """Another length."""
    axes = call.axes(call.inputs()[0])
    call.freeze(axes[-1])
    return [*axes[:-1], Fix(call.output.shape[-1])]


@rule('aten::grid_sampler_2d', 'aten::grid_sampler')
def grid_sample(call: Call) -> Axes:
    """Values at other places."""
    axes, grid = call.axes(call['input']), call.axes(call['grid'])
    call.freeze(*axes[2:], *grid[1:])
    call.unify(axes[0], grid[0])
    return [*axes[:2], *(Fix(size) for size in call.output.shape[2:])]


@rule('aten::constant_pad_nd')
def pad(call: Call) -> Axes:
    """Zeros at the ends of an axis, which may stand for channels of any group."""
    axes, padding = list(call.axes(call['self'])), call['pad']
    for number in range(len(padding) // 2):
        dim, (before, after) = len(axes) - 1 - number, padding[2 * number:2 * number + 2]
        if before < 0 or after < 0:
            call.freeze(axes[dim])
            axes[dim] = call.fixed(call.output.shape[dim])
        elif before or after:
            ends: list[Node] = [Atom(size) if size > 1 else Fix(size) for size in (before, after)]
            axes[dim] = Sum((ends[0], axes[dim], ends[1]))
    return axes


@rule('aten::im2col')
def unfold(call: Call) -> Axes:
    """Channels x places in the window."""
    axes = call.axes(call['self'])
    window = call['kernel_size'][0] * call['kernel_size'][1]
    call.freeze(*axes[2:])
    return [axes[0], Prod((axes[1], Fix(window))), Fix(call.output.shape[2])]


@rule('aten::col2im')
def fold(call: Call) -> Axes:
    """The reverse."""
    axes = call.axes(call['self'])
    window = call['kernel_size'][0] * call['kernel_size'][1]
    channels, inner = divide(axes[1], [axes[1].size // window, window], call.reason)
    call.freeze(inner, axes[2])
    return [axes[0], channels, *(Fix(size) for size in call.output.shape[2:])]


@rule('aten::pixel_shuffle')
def pixel_shuffle(call: Call) -> Axes:
    """Channels of which each brings several pixels."""
    axes, square = call.axes(call['self']), call['upscale_factor'] ** 2
    channels, inner = divide(axes[1], [axes[1].size // square, square], call.reason)
    call.freeze(inner, *axes[2:])
    return [axes[0], channels, *(Fix(size) for size in call.output.shape[2:])]


@rule('aten::pixel_unshuffle')
def pixel_unshuffle(call: Call) -> Axes:
    """The reverse."""
    axes, square = call.axes(call['self']), call['downscale_factor'] ** 2
    call.freeze(*axes[2:])
    return [axes[0], Prod((axes[1], Fix(square))), *(Fix(size) for size in call.output.shape[2:])]
