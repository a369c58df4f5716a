"""Attention that torch computes in one operation."""
from __future__ import annotations

from mmbignas.elastic.rules.registry import rule
from mmbignas.elastic.tracer import Axes, Call


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
