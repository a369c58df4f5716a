"""The tensors in nested data."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor


def tensors_in(data: Any) -> list[Tensor]:
    """The tensors in nested sequences and mappings, in order.

    Args:
        data: a tensor, a sequence or mapping of such data, or anything else, which has none.
    """
    if isinstance(data, Tensor):
        return [data]
    if isinstance(data, Mapping):
        data = data.values()
    elif not isinstance(data, Sequence) or isinstance(data, (str, bytes)):
        return []
    return [tensor for item in data for tensor in tensors_in(item)]
