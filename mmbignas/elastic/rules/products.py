"""Convolutions, matrix products, and attention that torch computes in one operation."""
from __future__ import annotations

from torch import Tensor

from mmbignas.elastic.axes import Atom, Fix, Prod, freeze
from mmbignas.elastic.rules.registry import rule
from mmbignas.elastic.tracer import Axes, Call

IN_GROUPS = 'of a grouped convolution whole groups are dropped'


@rule('aten::convolution', 'aten::_convolution', 'aten::mkldnn_convolution')
def convolution(call: Call) -> Axes:
    """Input channels meet the weight's; output channels are the weight's.

    Of a grouped convolution the groups are what can be dropped, and each keeps its channels.
    """
    x, weight, groups = call['input'], call['weight'], call['groups']
    transposed = bool(call['transposed']) if call.name != 'aten::mkldnn_convolution' else False
    axes, own = list(call.axes(x)), call.axes(weight)
    call.freeze(*own[2:], *axes[2:])
    enter, leave = (own[0], own[1]) if transposed else (own[1], own[0])
    if groups == 1:
        call.unify(axes[1], enter)
        channels = leave
    else:
        number = Atom(groups)
        call.unify(axes[1], Prod((number, Fix(axes[1].size // groups))))
        channels = Prod((number, Fix(call.output.shape[1] // groups)))
        if transposed:
            freeze(leave, IN_GROUPS)
            call.unify(enter, Prod((number, Fix(axes[1].size // groups))))
        else:
            freeze(enter, IN_GROUPS)
            call.unify(leave, channels)
    if groups == 1 or groups < axes[1].size or groups < channels.size:  # not depthwise, which makes no channels
        call.produces(channels)
    if call['bias'] is not None:
        call.unify(call.axes(call['bias'])[0], channels)
    return [axes[0], channels, *(Fix(size) for size in call.output.shape[2:])]


def _product(call: Call, left: Tensor, right: Tensor) -> Axes:
    """The last axis of one meets the second to last of the other; the axes before these go together."""
    one, other = call.axes(left), call.axes(right)
    call.unify(one[-1], other[-2])
    for node, tensor in ((other[-1], right), (one[-2], left)):
        if not call.is_data(tensor):
            call.produces(node)
    for a, b in zip(one[:-2], other[:-2]):
        call.unify(a, b)
    return [*one[:-2], one[-2], other[-1]]


@rule('aten::mm', 'aten::bmm')
def product(call: Call) -> Axes:
    """A matrix product."""
    return _product(call, call['self'], call['mat2'])


@rule('aten::addmm', 'aten::baddbmm')
def product_and_sum(call: Call) -> Axes:
    """A matrix product, and something that is added to it."""
    left, right = ('mat1', 'mat2') if call.name == 'aten::addmm' else ('batch1', 'batch2')
    axes = _product(call, call[left], call[right])
    for dim, node in enumerate(reversed(call.axes(call['self'])), 1):
        if node.size > 1:
            call.unify(node, axes[-dim])
    return axes


@rule('aten::mv', 'aten::dot', 'aten::vdot')
def vector_product(call: Call) -> Axes:
    """A matrix or vector and a vector."""
    tensors = call.inputs()
    call.unify(call.axes(tensors[0])[-1], call.axes(tensors[1])[0])
    return call.axes(tensors[0])[:-1]


@rule('aten::linear')
def linear(call: Call) -> Axes:
    """A linear layer that came whole."""
    axes, weight = call.axes(call['input']), call.axes(call['weight'])
    call.unify(axes[-1], weight[1])
    call.produces(weight[0])
    if call['bias'] is not None:
        call.unify(call.axes(call['bias'])[0], weight[0])
    return [*axes[:-1], weight[0]]


@rule('aten::cdist', 'aten::_cdist_forward')
def distances(call: Call) -> Axes:
    """Distances between the rows of two matrices."""
    one, other = call.axes(call['x1']), call.axes(call['x2'])
    call.unify(one[-1], other[-1])
    return [*one[:-2], one[-2], other[-2]]


@rule('aten::_scaled_dot_product_flash_attention_for_cpu', 'aten::_scaled_dot_product_attention_math',
      'aten::_scaled_dot_product_flash_attention', 'aten::_scaled_dot_product_efficient_attention')
def attention(call: Call) -> list[Axes | None]:
    """Queries meet keys in their channels, keys meet values in their places; batch and heads go together."""
    query, key, value = (call.axes(call[name]) for name in ('query', 'key', 'value'))
    call.unify(query[-1], key[-1])
    call.unify(key[-2], value[-2])
    for axes in (key, value):
        for one, other in zip(query[:-2], axes[:-2]):
            call.unify(one, other)
    outputs = call.output if isinstance(call.output, (tuple, list)) else [call.output]
    tensors = [made for made in outputs if hasattr(made, 'shape')]
    return [[*query[:-2], query[-2], value[-1]], *[None] * (len(tensors) - 1)]
