"""Activation checkpointing that leaves the running statistics of batch normalisations right."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.utils.checkpoint import checkpoint


def checkpointed(block: nn.Module, x: Tensor) -> Tensor:
    """Compute a block and keep only its input for the backward pass, which computes it once more.

    Gradients are the same, to the last bit, and random layers draw the same both times. The running statistics are
    moved once: MMEngine's ``activation_checkpointing`` and MMDetection's ``with_cp`` move them a second time.

    Args:
        block: the block; in eval mode, or without gradients, it is just called. Its settings must not change between
            the forward and the backward pass.
        x: its input.
    """
    if not (block.training and torch.is_grad_enabled()):
        return block(x)
    return checkpoint(block, x, use_reentrant=False, context_fn=lambda: (nullcontext(), _statistics_at_rest(block)))


@contextmanager
def _statistics_at_rest(block: nn.Module) -> Iterator[None]:
    """Let batch normalisations move copies of their running statistics."""
    # Having none would do too, but torch compares the number of tensors, and they are among them.
    buffers = [(module, name, buffer) for module in block.modules() if isinstance(module, _BatchNorm)
               for name, buffer in module.named_buffers(recurse=False)]
    for norm, name, buffer in buffers:
        setattr(norm, name, buffer.clone())
    try:
        yield
    finally:
        for norm, name, buffer in buffers:
            setattr(norm, name, buffer)
