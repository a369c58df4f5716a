"""How a network may be run: precision, memory format, images; and choices of these in which all pairs meet."""
from __future__ import annotations

import itertools
import random
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn


@dataclass(frozen=True)
class Arithmetic:
    """Precision and memory format.

    Args:
        dtype: that autocast computes in; ``None`` without autocast.
        channels_last: whether the channels of a pixel lie side by side in memory.
    """

    dtype: torch.dtype | None = None
    channels_last: bool = False

    def convert(self, *networks: nn.Module) -> None:
        """Give networks the memory format."""
        for network in networks:
            network.to(memory_format=self._format)  # type: ignore[call-overload]

    def converted(self, inputs: Any) -> Any:
        """Images, or lists of features, in the memory format."""
        if isinstance(inputs, Tensor):
            return inputs.to(memory_format=self._format) if inputs.dim() == 4 else inputs
        if isinstance(inputs, (list, tuple)):
            return [self.converted(value) for value in inputs]
        return inputs

    def autocast(self) -> AbstractContextManager[Any]:
        """The context that networks compute in."""
        return nullcontext() if self.dtype is None else torch.autocast('cpu', dtype=self.dtype)

    @property
    def _format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format


PLAIN = Arithmetic()
DTYPES = (None, torch.bfloat16)  # float16, which takes ten times as long on a CPU, has a test of its own
BATCHES = (1, 3)


def pairwise(seed: Any, *factors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """A few rows, each with one value of every factor, in which any two values of two factors meet.

    Args:
        seed: of the choice.
        *factors: the values of each.
    """
    def pairs(row: Sequence[int]) -> set[tuple[tuple[int, int], ...]]:
        return set(itertools.combinations(enumerate(row), 2))

    rows = list(itertools.product(*(range(len(values)) for values in factors)))
    random.Random(seed).shuffle(rows)
    left, chosen = set().union(*map(pairs, rows)), []
    while left:
        chosen.append(max(rows, key=lambda row: len(left & pairs(row))))
        left -= pairs(chosen[-1])
    return [tuple(values[index] for values, index in zip(factors, row)) for row in chosen]


def run_options(seed: Any, *factors: Sequence[Any]) -> list[tuple[Any, ...]]:
    """Rows of :func:`pairwise`: an :class:`Arithmetic`, the number of images, then a value of each further factor."""
    return [(Arithmetic(dtype, channels_last), batch, *others)
            for dtype, channels_last, batch, *others in pairwise(seed, DTYPES, (False, True), BATCHES, *factors)]
