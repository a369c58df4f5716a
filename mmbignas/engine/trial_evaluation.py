"""An evaluation of a few images, to find out which metrics there will be."""
from __future__ import annotations

import copy
import logging
from collections.abc import Sequence
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner.amp import autocast
from torch.utils.data import IterableDataset

from mmbignas.engine.random_states import preserved_rng
from mmbignas.engine.silence import silence

IMAGES = 4
# Their metrics have the same names for all images. One's own may have names that depend on the images, or count calls.
LIBRARIES = ('mmdet', 'mmpretrain', 'mmengine')


def is_of_library(metric: BaseMetric) -> bool:
    """Whether the names of what a metric gives do not depend on the images."""
    return type(metric).__module__.partition('.')[0] in LIBRARIES


@torch.no_grad()
def trial_evaluation(loop: Any, metrics: Sequence[BaseMetric]) -> list[str]:
    """The names that metrics give for a few images, with the model as it is.

    In all processes the images are the same. Model, metrics and random states stay as they are.

    Args:
        loop: MMEngine's loop of a validation or test, complete.
        metrics: some of its evaluator's.

    Returns:
        list: names; none for a data set that can only be iterated over.
    """
    model, dataset = loop.runner.model, loop.dataloader.dataset
    if not metrics or isinstance(dataset, IterableDataset):
        return []
    # Not of the loop: CocoMetric without an annotation file keeps that of the first images it has seen.
    evaluator = Evaluator([copy.copy(metric) for metric in metrics])
    for metric in evaluator.metrics:
        metric.results = []
    training = {module: module.training for module in model.modules()}
    images = range(min(IMAGES, len(dataset)))
    with preserved_rng(), silence(loop.runner.logger, logging.CRITICAL):
        model.eval()
        try:
            batch = loop.dataloader.collate_fn([dataset[index] for index in images])
            with autocast(enabled=loop.fp16):
                outputs = model.val_step(batch)
        finally:
            for module, mode in training.items():
                module.training = mode
        evaluator.process(data_samples=outputs, data_batch=batch)
        return list(evaluator.evaluate(len(images)))
