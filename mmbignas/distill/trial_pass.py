"""A forward pass before training, to find out what a model puts out."""
from __future__ import annotations

from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch.utils.data import IterableDataset

from mmbignas.train.undisturbed import undisturbed
from mmbignas.utils.random_states import preserved_rng

TRIAL_IMAGES = 2  # batch normalisation needs more than one value of a channel


def trial_batch(runner: Any) -> Any:
    """A few preprocessed training images, or ``None`` for a data set that can only be iterated over.

    They are not from the dataloader, whose workers and sampler belong to the training. Random states stay as they are.

    Args:
        runner: the runner, about to train.
    """
    dataloader = runner.train_loop.dataloader
    if isinstance(dataloader.dataset, IterableDataset):
        return None
    with preserved_rng():
        batch = dataloader.collate_fn([dataloader.dataset[index]
                                       for index in range(min(TRIAL_IMAGES, len(dataloader.dataset)))])
        return _plain(runner.model).data_preprocessor(batch, False)


def trial_pass(runner: Any, batch: Any) -> dict[str, Any]:
    """The losses of a batch. Weights, statistics and random states stay as they are.

    Args:
        runner: the runner, about to train.
        batch: from :func:`trial_batch`.
    """
    model = _plain(runner.model)
    training = model.training
    with preserved_rng(), undisturbed(model.train()), torch.no_grad():
        losses = model._run_forward(batch, mode='loss')
    model.train(training)
    return losses


def _plain(model: Any) -> Any:
    return model.module if is_model_wrapper(model) else model
