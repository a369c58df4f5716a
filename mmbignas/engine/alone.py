"""Processes of one distributed run that work for a while as if each were the only one."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
import torch.distributed as torch_dist
from mmengine.dist import broadcast, get_world_size, is_distributed
from torch import nn


class Alone:
    """Lets each process of a distributed run be a world of its own for a while.

    Then samplers give a process the whole data set, metrics are its own, and nothing waits for the others. It is made
    in all processes together; in a run of one process it does nothing.
    """

    def __init__(self) -> None:
        self._group = torch_dist.new_subgroups(group_size=1)[0] if is_distributed() else None

    @contextmanager
    def __call__(self) -> Iterator[None]:
        """Be alone while it is open."""
        if self._group is None:
            yield
            return
        world = torch_dist.group.WORLD
        torch_dist.group.WORLD = self._group
        try:
            yield
        finally:
            torch_dist.group.WORLD = world


@contextmanager
def buffers_of_the_first(model: nn.Module) -> Iterator[None]:
    """Let all processes have the first one's statistics while it is open; in a training, each has its own.

    Args:
        model: not a wrapper.
    """
    if get_world_size() == 1:
        yield
        return
    own = [buffer.detach().clone() for buffer in model.buffers()]
    for buffer in model.buffers():
        broadcast(buffer)
    try:
        yield
    finally:
        with torch.no_grad():
            for buffer, value in zip(model.buffers(), own):
                buffer.copy_(value)
