"""A machine whose times are known: so much a multiply-add."""
from __future__ import annotations

import copy
import random
from typing import Any

import torch
from torch import Tensor, nn

from mmbignas.latency import Backend, Timing
from mmbignas.latency.measurement import TensorMode

PER_MAC, BESIDE, STRETCH = 1e-6, 3., 1.2  # milliseconds


def conv_macs(module: nn.Module, inputs: tuple) -> int:
    """Multiply-adds of the convolutions that run, which must be plain ones."""
    total = 0

    def count(conv: nn.Conv2d, inputs: tuple, output: Tensor) -> None:
        nonlocal total
        assert type(conv) is nn.Conv2d
        total += output.numel() * conv.weight[0].numel()

    module = copy.deepcopy(module)
    for part in module.modules():
        if isinstance(part, nn.Conv2d):
            part.register_forward_hook(count)
    with torch.no_grad():
        module.eval()(*inputs)
    return total


class FakeBackend(Backend):
    """Takes known times, but for a disturbance of whole networks; may be interrupted before a measurement."""

    name = 'fake'

    def __init__(self, rounds: int = 1, noise: float = 0.) -> None:
        super().__init__(threads=1)
        self.rounds, self.rng, self.noise = rounds, random.Random(0), noise  # type: ignore[misc]
        self.left: float = float('inf')
        self.measured: list[float] = []

    def prepare(self, module: nn.Module, inputs: tuple) -> Any:
        raise NotImplementedError

    def time(self, module: nn.Module, inputs: tuple, **options: Any) -> Timing:
        if self.left < 1:
            raise KeyboardInterrupt
        self.left -= 1
        milliseconds = PER_MAC * conv_macs(module, inputs) + 1e-12  # no time is nothing
        if isinstance(module, TensorMode):
            milliseconds = (BESIDE + STRETCH * milliseconds) * (1 + self.rng.uniform(0, self.noise))
        self.measured.append(milliseconds)
        return Timing(milliseconds, 0., 1)
