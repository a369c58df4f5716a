"""Models: without their wrappers, and with their training flags kept."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import cast

from mmengine.model import is_model_wrapper
from torch import nn


def unwrapped(model: nn.Module) -> nn.Module:
    """The model itself, where it may stand in a wrapper such as ``MMDistributedDataParallel``.

    Args:
        model: with or without a wrapper.
    """
    return cast(nn.Module, model.module) if is_model_wrapper(model) else model


@contextmanager
def training_flags_kept(model: nn.Module) -> Iterator[None]:
    """Put the training flag of every module back at the end.

    ``model.train()`` would not do that: it also sets those that are frozen.

    Args:
        model: with or without a wrapper.
    """
    flags = {module: module.training for module in model.modules()}
    try:
        yield
    finally:
        for module, training in flags.items():
            module.training = training
