"""Forward passes in the middle of a training that leave no trace."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmcv.cnn.bricks import DropPath
from torch import nn

from mmbignas.supernet import BNState
from mmbignas.utils.random_states import preserved_rng

DROPS = (DropPath, nn.modules.dropout._DropoutNd)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put running statistics and random states back at the end; until then, drop layers let everything through.

    Args:
        model: a model in training mode, not a wrapper.
    """
    drops = [module for module in model.modules() if isinstance(module, DROPS) and module.training]
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    statistics = BNState(model)
    with preserved_rng(), torch.random.fork_rng(devices):
        for module in drops:
            module.eval()
        try:
            yield
        finally:
            for module in drops:
                module.train()
            statistics.restore()
