"""The random states of Python, NumPy and torch: seeded, kept, put back."""
from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch


def mixed_seed(*numbers: int) -> int:
    """One seed, of 32 bits, from several integers from 0, so that the seeds of neighbours have nothing in common."""
    # NumPy takes zeros at the end for nothing, so their count has to be told.
    return int(np.random.SeedSequence((len(numbers), *numbers)).generate_state(1)[0])


def seed_cpu(seed: int) -> None:
    """Seed Python, NumPy and torch's generator of the CPU (32 bits), and leave those of the GPUs as they are."""
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002 (what MMEngine's transforms draw from)
    torch.default_generator.manual_seed(seed)


def seed_process(seed: int) -> None:
    """Seed Python, NumPy and torch (32 bits), on all devices in use."""
    seed_cpu(seed)
    if torch.cuda.is_initialized():  # else, torch would keep a stack trace of each call
        torch.cuda.manual_seed_all(seed)


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Put the random states of Python, NumPy and torch (CPU) back at the end."""
    states = _states()
    try:
        yield
    finally:
        _restore(states)


class OwnRandomness:
    """Random states of Python, NumPy and torch on the CPU that are in force within a ``with`` block alone.

    Args:
        seed: what they begin with at the first block; each further one goes on where the last ended.
    """

    def __init__(self, seed: int) -> None:
        self._seed, self._states = seed, None

    def __enter__(self) -> None:
        self._outer = _states()
        if self._states is None:
            seed_cpu(self._seed)
        else:
            _restore(self._states)

    def __exit__(self, *error: object) -> None:
        self._states = _states()
        _restore(self._outer)


def _states() -> Any:
    return random.getstate(), np.random.get_state(), torch.default_generator.get_state()  # noqa: NPY002


def _restore(states: Any) -> None:
    random.setstate(states[0])
    np.random.set_state(states[1])  # noqa: NPY002
    torch.default_generator.set_state(states[2])
