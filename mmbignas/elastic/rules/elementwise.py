"""Operations that work on each element by itself, and those that make tensors of their own.

The same value everywhere fits any positions; counted or random values do not.
"""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmbignas.elastic.axes import Atom, Fix, Node, split
from mmbignas.elastic.rules.registry import rule
from mmbignas.elastic.tracer import Axes, Call, Rule


def broadcast(call: Call, tensors: Sequence[Tensor]) -> Axes:
    """The axes of what several tensors give together, with axes of size 1 repeated as needed."""
    result: Axes = []
    for axes in map(call.axes, tensors):
        padded: list[Node] = [*[Fix(1)] * (len(result) - len(axes)), *axes]
        result = [*[Fix(1)] * (len(axes) - len(result)), *result]
        for dim, node in enumerate(padded):
            if result[dim].size == 1:
                result[dim] = node
            elif node.size != 1:
                call.unify(result[dim], node)
    return result


@rule('aten::mish', 'aten::hardswish', 'aten::hardswish_', 'aten::leaky_relu_', 'aten::elu_', 'aten::detach',
      'aten::alias', 'aten::lift_fresh', 'aten::_to_copy', 'aten::to', 'aten::contiguous', 'aten::prelu',
      'aten::nan_to_num', 'aten::fake_quantize', 'aten::bernoulli_', 'aten::smooth_l1_loss', 'aten::mse_loss',
      'aten::binary_cross_entropy_with_logits', 'aten::binary_cross_entropy', 'aten::huber_loss')
def pointwise(call: Call) -> Axes | None:
    """Any operation whose output has the size of its inputs together, element by element."""
    tensors = call.inputs()
    axes = broadcast(call, tensors)
    if [node.size for node in axes] != list(call.output.shape):  # such as a loss that is reduced
        return None
    return axes


@rule('aten::copy_')
def copy(call: Call) -> Axes:
    """``self`` takes the positions of what is written to it."""
    axes = broadcast(call, [call['self'], call['src']])
    return axes


@rule('aten::zero_', 'aten::fill_', 'aten::uniform_', 'aten::normal_')
def fill(call: Call) -> Axes:
    """The same everywhere, whatever the positions."""
    return call.axes(call['self'])


@rule('aten::_prelu_kernel')
def prelu(call: Call) -> Axes:
    """A slope per channel, already of the shape that is broadcast."""
    return broadcast(call, [call['self'], call['weight']])


@rule('aten::native_dropout')
def dropout(call: Call) -> list[Axes]:
    """Values and mask."""
    axes = call.axes(call['input'])
    return [axes, axes]


@rule('aten::glu')
def glu(call: Call) -> Axes:
    """Two halves, of which one gates the other."""
    axes, dim = list(call.axes(call['self'])), call['dim']
    one, other = split(axes[dim], axes[dim].size // 2, call.reason)
    call.unify(one, other)
    axes[dim] = one
    return axes


@rule('aten::zeros', 'aten::ones', 'aten::full', 'aten::empty', 'aten::new_zeros', 'aten::new_ones', 'aten::new_full',
      'aten::new_empty', 'aten::scalar_tensor', 'aten::empty_strided', 'aten::new_empty_strided', creates=True)
def uniform(call: Call) -> Axes:
    """The same value everywhere: each axis may turn out to be any.

    If its size does not follow from that of another tensor, verification will tell.
    """
    return [Atom(size) if size > 1 else Fix(size) for size in call.output.shape]


@rule('aten::zeros_like', 'aten::ones_like', 'aten::full_like', 'aten::empty_like', 'aten::rand_like',
      'aten::randn_like', 'aten::bernoulli')
def like(call: Call) -> Axes:
    """The axes of the tensor that was given."""
    return call.axes(call.inputs()[0])


def default_rule(func: Any) -> Rule | None:
    """The rule of an operation without a registered one, by torch's tags; ``None`` where there is none."""
    return pointwise if torch.Tag.pointwise in func.tags else None
