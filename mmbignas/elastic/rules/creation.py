"""Operations that make tensors: the same value everywhere fits any positions, counted or random values do not."""
from __future__ import annotations

from mmbignas.elastic.axes import Atom, Fix
from mmbignas.elastic.rules.registry import rule
from mmbignas.elastic.tracer import Axes, Call


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
