"""What distillation losses are given.

Each takes two sequences, student and teacher, with an entry for every module named in the job: the list of that
module's output tensors, one a call. Teachers' outputs have no gradients. Losses are computed in float32, also under
automatic mixed precision.
One with ``needs_data_samples = True`` also takes ``data_samples``, those of the batch. One with an attribute
``num_modules`` takes the outputs of so many modules.
"""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

ModuleOutputs = Sequence[Sequence[Tensor]]


def pairs(student: ModuleOutputs, teacher: ModuleOutputs) -> Iterator[tuple[Tensor, Tensor]]:
    """The tensors to compare, of all modules.

    Raises:
        ValueError: where one has more than the other.
    """
    for ours, theirs in zip(student, teacher, strict=True):
        yield from zip(ours, theirs, strict=True)


def as_float(tensor: Tensor) -> Tensor:
    """The tensor in float32, or in float64 where it is."""
    return tensor.to(torch.promote_types(tensor.dtype, torch.float32))


def data_samples_of(batch: Any) -> Any:
    """The data samples of a preprocessed batch, as MMEngine gives it to models.

    Args:
        batch: a dict with ``data_samples``, or a sequence of inputs and data samples.

    Returns:
        ``None`` where there are none.
    """
    if isinstance(batch, Mapping):
        return batch.get('data_samples')
    return batch[1] if isinstance(batch, Sequence) and len(batch) > 1 else None
