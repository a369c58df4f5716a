"""Normalisations."""
from __future__ import annotations

from mmbignas.elastic.axes import Atom, Fix, Node, Prod, divide
from mmbignas.elastic.rules.registry import rule
from mmbignas.elastic.tracer import Axes, Call


@rule('aten::native_batch_norm', 'aten::_native_batch_norm_legit', 'aten::_native_batch_norm_legit_no_training',
      'aten::_batch_norm_with_update', 'aten::_batch_norm_no_update', 'aten::cudnn_batch_norm')
def batch_norm(call: Call) -> list[Axes | None]:
    """Everything but the input has one axis, that of the channels."""
    x = call.inputs()[0]
    axes = call.axes(x)
    for tensor in call.inputs()[1:]:
        call.unify(call.axes(tensor)[0], axes[1])
    outputs = call.output if isinstance(call.output, (tuple, list)) else [call.output]
    # Statistics of the batch, of size 0 in eval mode.
    return [axes, *([axes[1]] if made.dim() == 1 and made.shape[0] == axes[1].size else None for made in outputs[1:])]


@rule('aten::native_group_norm')
def group_norm(call: Call) -> list[Axes | None]:
    """Whole groups are dropped, so that a group keeps its size; an axis with one group per channel is like any."""
    x, groups = call['input'], call['group']
    axes = call.axes(x)
    number: Node = Atom(groups) if groups > 1 else Fix(1)
    if groups > 1:
        call.unify(axes[1], Prod((number, Fix(axes[1].size // groups))))
    for tensor in (call['weight'], call['bias']):
        if tensor is not None:
            call.unify(call.axes(tensor)[0], axes[1])
    return [axes, [axes[0], number], [axes[0], number]]


@rule('aten::native_layer_norm')
def layer_norm(call: Call) -> list[Axes | None]:
    """The last axes meet those of weight and bias."""
    x = call['input']
    axes = call.axes(x)
    for tensor in (call['weight'], call['bias']):
        if tensor is not None:
            own = call.axes(tensor)
            for one, other in zip(own, axes[-len(own):]):
                call.unify(one, other)
    count = len(call['normalized_shape'])
    rest: Axes = [*axes[:-count], *[Fix(1)] * count]
    return [axes, rest, rest]


@rule('aten::_weight_norm_interface')
def weight_norm(call: Call) -> list[Axes]:
    """A direction and a length per channel."""
    axes, own = call.axes(call['v']), call.axes(call['g'])
    for one, other in zip(axes, own):
        if other.size > 1:
            call.unify(one, other)
    return [axes, own]


@rule('aten::_fused_rms_norm', 'aten::rms_norm')
def rms_norm(call: Call) -> list[Axes | None]:
    """As a layer norm, without a bias."""
    axes = call.axes(call['input'])
    if call['weight'] is not None:
        own = call.axes(call['weight'])
        for one, other in zip(own, axes[-len(own):]):
            call.unify(one, other)
    outputs = call.output if isinstance(call.output, (tuple, list)) else [call.output]
    return [axes, *[None] * (len(outputs) - 1)]


@rule('aten::channel_shuffle', 'aten::native_channel_shuffle')
def channel_shuffle(call: Call) -> Axes:
    """Channels of groups, interleaved."""
    axes = list(call.axes(call['self']))
    outer, inner = divide(axes[1], [call['groups'], axes[1].size // call['groups']], call.reason)
    axes[1] = Prod((inner, outer))
    return axes
