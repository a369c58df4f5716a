"""Whether the model has the losses that distillation jobs replace, found out before training."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from mmengine.model import is_model_wrapper
from torch.utils.data import IterableDataset

from mmbignas.distill import DistillJob, check_replaced
from mmbignas.engine.fixed_images import preserved_rng
from mmbignas.engine.undisturbed import undisturbed

IMAGES = 2  # batch normalisation needs more than one value of a channel


def check_replaced_first(runner: Any, jobs: Mapping[str, DistillJob], key: str) -> None:
    """Let the model compute the losses of a few training images, and look for those that jobs replace.

    What losses a model returns is known to nothing but the model. Weights, statistics and random states stay as they
    are. Data sets that can only be iterated over are not touched: the first iteration checks the names again.

    Args:
        runner: the runner, about to train.
        jobs: name -> job.
        key: the jobs' place in the config, for messages.

    Raises:
        ConfigError: for a loss to replace that the model does not have.
    """
    if not any(job.replaces for job in jobs.values()):
        return
    dataloader = runner.train_loop.dataloader
    dataset = dataloader.dataset
    if isinstance(dataset, IterableDataset):
        return
    model = runner.model.module if is_model_wrapper(runner.model) else runner.model
    with preserved_rng(), undisturbed(model), torch.no_grad():
        # Not from the dataloader, whose workers and sampler belong to the training.
        batch = dataloader.collate_fn([dataset[index] for index in range(min(IMAGES, len(dataset)))])
        losses = model._run_forward(model.data_preprocessor(batch, False), mode='loss')
    check_replaced(losses, jobs, key)
