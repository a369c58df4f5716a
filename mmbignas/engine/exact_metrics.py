"""Metrics at full precision, and of a part of the data set."""
from __future__ import annotations

import inspect
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from mmengine.evaluator import BaseMetric, Evaluator

from mmbignas.errors import ConfigError


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
