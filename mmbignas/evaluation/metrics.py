"""Metrics at full precision, and of a part of the data set."""
from __future__ import annotations

import copy
import inspect
import logging
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.runner.amp import autocast
from torch.utils.data import IterableDataset

from mmbignas.errors import ConfigError
from mmbignas.evaluation.subnet_loop import silence
from mmbignas.utils.random_states import preserved_rng

IMAGES = 4
# Their metrics have the same names for all images. One's own may have names that depend on the images, or count calls.
LIBRARIES = ('mmdet', 'mmpretrain', 'mmengine')


@contextmanager
def exact(evaluator: Evaluator) -> Iterator[None]:
    """Let metrics have all their digits.

    MMDetection's ``CocoMetric`` rounds to three decimals, and thousands of subnets differ by less than that. Here
    ``round`` does nothing in the modules of the metrics' classes, those of parent classes included: ``CocoMetric``
    (boxes, masks, per class), ``VOCMetric``, ``OpenImagesMetric``, ``CrowdHumanMetric``, ``OVCocoMetric`` and
    ``DODCocoMetric`` round by it. What is printed into a string and read again stays rounded: the recalls of proposals
    in ``CocoMetric``, ``LVISMetric`` and ``YouTubeVISMetric``; so do ``ReIDMetrics`` and ``SemSegMetric``, which round
    arrays. MMPretrain's metrics round nothing.

    Args:
        evaluator: evaluates while the context is open.
    """
    modules = {sys.modules[kind.__module__] for metric in evaluator.metrics for kind in type(metric).__mro__
               if issubclass(kind, BaseMetric) and kind is not BaseMetric}
    with ExitStack() as stack:
        for module in modules:
            names = vars(module)
            if 'round' not in names:  # else it is its own, or exact already
                names['round'] = _round
                stack.callback(names.pop, 'round')
        yield


def _round(number: Any, ndigits: int | None = None) -> Any:
    """``round`` that only rounds to whole numbers."""
    return number if ndigits is not None and ndigits > 0 else round(number, ndigits)


@contextmanager
def restricted(evaluator: Evaluator, dataset: Any, indices: Sequence[int]) -> Iterator[None]:
    """Let metrics take the chosen images for the whole data set.

    ``CocoMetric`` with an ``ann_file`` evaluates all images in it: what is in the others would count as not found.
    ``Evaluator.evaluate`` is then to be told the number of the chosen images. Metrics that only know what they were
    given need no restriction.

    Args:
        evaluator: processes and evaluates while the context is open.
        dataset: the data set of the evaluation.
        indices: which of its items are evaluated.

    Raises:
        ConfigError: for a data set that does not tell the ids of its images, or a metric with an annotation file that
            cannot be restricted.
    """
    with ExitStack() as stack:
        for index, metric in enumerate(evaluator.metrics):
            if hasattr(metric, 'img_ids'):
                stack.enter_context(_restricted(metric, dataset, indices))
            elif 'ann_file' in inspect.signature(type(metric)).parameters:
                raise ConfigError(f'val_evaluator[{index}]: {type(metric).__name__} evaluates all images of its '
                                  'annotation file; allowed for a part of them: CocoMetric and metrics derived from '
                                  'it, or metrics without a file')
        yield


@contextmanager
def _restricted(metric: Any, dataset: Any, indices: Sequence[int]) -> Iterator[None]:
    """The same for one metric that has ``img_ids``: those of the images to evaluate, all of the file if None."""
    # Annotations that were not read from a file are made of the first results.
    names = [name for name in ('img_ids', '_coco_api', '_lvis_api') if hasattr(metric, name)]
    before = {name: getattr(metric, name) for name in names}
    if any(before[name] is not None for name in names[1:]):
        try:
            metric.img_ids = [dataset.get_data_info(index)['img_id'] for index in indices]
        except (AttributeError, KeyError) as error:
            raise ConfigError(f'val_dataloader.dataset: {type(dataset).__name__} does not tell the ids of its images '
                              f'({error}), which {type(metric).__name__} needs in order to evaluate a part of them; '
                              'allowed: data sets of MMDetection') from error
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(metric, name, value)


class WantedMetrics:
    """Notices metrics that do not exist as soon as that can be known.

    COCO's evaluation gives no metric at all where nothing was detected, so a metric that is missing may still come.

    Args:
        wanted: place in the config -> name of a metric.
        evaluator: what gives the metrics.
    """

    def __init__(self, wanted: Mapping[str, str], evaluator: Evaluator) -> None:
        self.wanted, self._metrics = dict(wanted), evaluator.metrics
        self._seen: dict[str, None] = {}

    def try_out(self, loop: Any) -> None:
        """Find out, as far as it can be known before the first evaluation, whether there are the metrics.

        MMDetection's and MMPretrain's are asked by :func:`~mmbignas.evaluation.metrics.trial_evaluation`; of one's
        own the prefix is all that is known.

        Args:
            loop: MMEngine's loop with the evaluator, complete.

        Raises:
            ConfigError: when a wanted metric cannot come, with what can.
        """
        if not self.wanted:
            return
        names = trial_evaluation(loop, [metric for metric in self._metrics if is_of_library(metric)])
        open_ones = [metric for metric in self._metrics if not is_of_library(metric) or not _said(metric, names)]
        for key, name in self.wanted.items():
            if name not in names and not any(_may_give(metric, name) for metric in open_ones):
                allowed = [*names, *(f'names that begin with {metric.prefix}/' for metric in open_ones)]
                raise ConfigError(f'{key}: {name!r} is not allowed; allowed: {", ".join(allowed)}')

    def see(self, names: Iterable[str]) -> str | None:
        """Take note of the metrics of a subnet.

        Args:
            names: their names, those of metrics that are no number too.

        Returns:
            str: the first metric of all, ``None`` as long as there was none.

        Raises:
            ConfigError: when a wanted metric does not exist, listing those that do.
        """
        self._seen.update(dict.fromkeys(names))
        # Those that have said nothing may have something to say of other subnets.
        silent = [metric for metric in self._metrics if metric.prefix and not _said(metric, self._seen)]
        for key, name in self.wanted.items() if self._seen else ():
            if name not in self._seen and not any(_may_give(metric, name) for metric in silent):
                raise ConfigError(f'{key}: {name!r} is not allowed; allowed: {", ".join(self._seen)}')
        return next(iter(self._seen), None)


def _may_give(metric: BaseMetric, name: str) -> bool:
    """Whether a metric may be of this name, by its prefix."""
    return not metric.prefix or name.startswith(f'{metric.prefix}/')


def _said(metric: BaseMetric, names: Iterable[str]) -> bool:
    """Whether any of the names may be of a metric."""
    return any(_may_give(metric, name) for name in names)


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
