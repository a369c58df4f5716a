"""Forward passes before and during a training that leave no trace."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmcv.cnn.bricks import DropPath
from torch import nn
from torch.utils.data import IterableDataset

from mmbignas.supernet import BNState
from mmbignas.utils.models import training_flags_kept, unwrapped
from mmbignas.utils.random_states import preserved_rng

TRIAL_IMAGES = 2  # batch normalisation needs more than one value of a channel
DROPS = (DropPath, nn.modules.dropout._DropoutNd)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Put running statistics and random states back at the end; until then, drop layers let everything through."""
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


def trial_batch(runner: Any) -> Any:
    """A few preprocessed training images, or ``None`` for a data set that can only be iterated over.

    They are not from the dataloader, whose workers and sampler belong to the training. Random states stay as they are.
    """
    dataloader = runner.train_loop.dataloader
    if isinstance(dataloader.dataset, IterableDataset):
        return None
    with preserved_rng():
        batch = dataloader.collate_fn([dataloader.dataset[index]
                                       for index in range(min(TRIAL_IMAGES, len(dataloader.dataset)))])
        model: Any = unwrapped(runner.model)
        return model.data_preprocessor(batch, False)


def trial_pass(runner: Any, batch: Any) -> dict[str, Any]:
    """The losses of a batch of :func:`trial_batch`. Weights, statistics and random states stay as they are."""
    model: Any = unwrapped(runner.model)
    with training_flags_kept(model), preserved_rng(), undisturbed(model.train()), torch.no_grad():
        return model._run_forward(batch, mode='loss')
