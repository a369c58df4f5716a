"""Models without their wrappers, with their training flags kept, and the tensors that they put out."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, cast

from mmengine.model import is_model_wrapper
from torch import Tensor, nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where it may stand in a wrapper such as ``MMDistributedDataParallel``."""
    return cast(nn.Module, model.module) if is_model_wrapper(model) else model


@contextmanager
def training_flags_kept(model: nn.Module) -> Iterator[None]:
    """Put the training flag of every module back at the end.

    ``model.train()`` would not do that: it also sets those that are frozen.
    """
    flags = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training


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
