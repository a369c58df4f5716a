"""The evaluator of a run on a part of its images: with one data set or several, and whatever its class."""
from __future__ import annotations

import bisect
import copy
import inspect
import io
import logging
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stdout
from typing import Any

from mmengine.evaluator import BaseMetric, Evaluator

from mmbignas.utils.output_paths import writes_to
from mmbignas.utils.rules import must_be

# Their metrics have the same names for all images. One's own may have names that depend on the images, or count calls.
LIBRARIES = ('mmdet', 'mmpretrain', 'mmengine')
WHOLE = ('ann_file', 'seg_prefix')  # arguments of metrics that look at all images


class SilentMetric(BaseMetric):
    """Stands in the place of a metric that is not to be disturbed."""

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Keep nothing."""

    def compute_metrics(self, results: list) -> dict[str, Any]:
        """No metrics."""
        return {}

    def evaluate(self, size: int) -> dict[str, Any]:
        """No metrics."""
        return {}


def named_metrics(evaluator: Evaluator) -> list[tuple[BaseMetric, str | None]]:
    """The metrics of an evaluator, each with the prefix of its results' names.

    MMDetection's ``MultiDatasetsEvaluator`` puts that of the metric's data set in front.
    """
    of_datasets = getattr(evaluator, 'dataset_prefixes', None)
    if of_datasets is None:
        return [(metric, metric.prefix) for metric in evaluator.metrics]
    return [(metric, '/'.join(filter(None, (own, metric.prefix))))
            for own, metric in zip(of_datasets, evaluator.metrics)]


def is_of_library(metric: BaseMetric) -> bool:
    """Whether the names of what a metric gives do not depend on the images."""
    return type(metric).__module__.partition('.')[0] in LIBRARIES


def trial_evaluator(evaluator: Evaluator, dataset: Any) -> Evaluator:
    """A copy of an evaluator, of its class, that leaves the original and its files alone.

    Metrics of one's own, and those that need all images or write files, are silent in it.

    Args:
        evaluator: the evaluator of a run.
        dataset: the data set of the images that the copy will see.
    """
    own = copy.copy(evaluator)
    own.metrics = [_trial_metric(metric) for metric in evaluator.metrics]
    if hasattr(own, '_setups'):  # of MultiDatasetsEvaluator: its metrics are told their data sets again
        own._setups = False
    metainfo = getattr(dataset, 'metainfo', None)
    own.dataset_meta = evaluator.dataset_meta if metainfo is None else metainfo
    return own


def _trial_metric(metric: BaseMetric) -> BaseMetric:
    arguments = inspect.signature(type(metric)).parameters
    of_a_part = hasattr(metric, 'img_ids') or not any(name in arguments for name in WHOLE)
    # Copies: CocoMetric without an annotation file keeps that of the first images it has seen.
    own = copy.copy(metric) if is_of_library(metric) and of_a_part else SilentMetric(prefix=metric.prefix)
    own.results = []
    if hasattr(own, 'outfile_prefix'):
        own.outfile_prefix = None
    return SilentMetric(prefix=metric.prefix) if writes_to(own) else own


@contextmanager
def restricted(evaluator: Evaluator, dataset: Any, indices: Sequence[int], stage: str = 'val') -> Iterator[None]:
    """Let metrics take the chosen images for the whole data set.

    ``CocoMetric`` with an ``ann_file`` evaluates all images in it: what is in the others would count as not found.
    ``Evaluator.evaluate`` is then to be told the number of the chosen images. Metrics that only know what they were
    given need no restriction. With ``MultiDatasetsEvaluator``, each metric takes those of its own data set.

    Args:
        evaluator: processes and evaluates while the context is open.
        dataset: the data set of the evaluation.
        indices: which of its items are evaluated.
        stage: ``val`` or ``test``, for messages.

    Raises:
        ConfigError: for a data set that does not tell the ids of its images, or a metric with an annotation file that
            cannot be restricted.
    """
    with ExitStack() as stack:
        for index, (metric, own) in enumerate(zip(evaluator.metrics, _shares(evaluator, indices))):
            if hasattr(metric, 'img_ids'):
                stack.enter_context(_restricted(metric, dataset, own, f'{stage}_dataloader.dataset'))
            elif 'ann_file' in inspect.signature(type(metric)).parameters:
                raise must_be(f'{stage}_evaluator[{index}]', 'CocoMetric, derived from it, or without an annotation '
                              'file to evaluate a part of the images', type(metric))
        yield


def _shares(evaluator: Evaluator, indices: Sequence[int]) -> list[Sequence[int]]:
    """For each metric the images of its data set, of those that are evaluated."""
    meta: Any = evaluator.dataset_meta
    meta = meta[0] if isinstance(meta, list) else meta
    if not hasattr(evaluator, 'dataset_prefixes') or 'cumulative_sizes' not in (meta or {}):
        return [indices] * len(evaluator.metrics)
    ends = meta['cumulative_sizes']
    return [[index for index in indices if bisect.bisect_right(ends, index) == number]
            for number in range(len(evaluator.metrics))]


@contextmanager
def _restricted(metric: Any, dataset: Any, indices: Sequence[int], key: str) -> Iterator[None]:
    """The same for one metric that has ``img_ids``: those of the images to evaluate, all of the file if None."""
    # Annotations that were not read from a file are made of the first results.
    names = [name for name in ('img_ids', '_coco_api', '_lvis_api') if hasattr(metric, name)]
    before = {name: getattr(metric, name) for name in names}
    if any(before[name] is not None for name in names[1:]):
        try:
            metric.img_ids = [dataset.get_data_info(index)['img_id'] for index in indices]
        except (AttributeError, KeyError) as error:
            raise must_be(key, 'a data set of MMDetection to evaluate a part of the images, since '
                          f'{type(metric).__name__} needs their ids ({error})', type(dataset)) from error
    try:
        yield
    finally:
        for name, value in before.items():
            setattr(metric, name, value)


@contextmanager
def silence(logger: logging.Logger, level: int = logging.WARNING) -> Iterator[None]:
    """Let a logger pass only this level and above, and print nothing, as pycocotools would."""
    before = logger.level
    logger.setLevel(level)
    try:
        with redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
