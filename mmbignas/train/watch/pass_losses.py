"""The losses of passes over all processes, without a wait in every iteration."""
from __future__ import annotations

import torch
from mmengine.dist import all_reduce
from torch import Tensor


class PassLosses:
    """Collects losses on the device that they are computed on, until somebody wants to see them.

    A look at a loss waits for the device, and an average over the processes for all of them; a hook that looks every
    few iterations does so once for all the losses since it did last.
    """

    def __init__(self) -> None:
        self._losses: list[Tensor] = []

    def add(self, loss: Tensor) -> None:
        """Add a loss, a scalar without a graph; in all processes, in the same order."""
        self._losses.append(loss.float())

    def take(self) -> list[float]:
        """What was added since the last call, each averaged over the processes; all of them must call this together."""
        if not self._losses:
            return []
        losses = torch.stack(self._losses)
        self._losses = []
        all_reduce(losses, 'mean')
        return losses.tolist()
