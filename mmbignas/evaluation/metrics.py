"""Metrics of a part of the data set, those that a config names, and what becomes of them in files."""
from __future__ import annotations

import inspect
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from numbers import Real
from typing import Any

import numpy as np
from mmengine.evaluator import BaseMetric, Evaluator
from torch import Tensor

from mmbignas.utils.metric_values import is_number
from mmbignas.utils.rules import must_be

# Their metrics have the same names for all images. One's own may have names that depend on the images, or count calls.
LIBRARIES = ('mmdet', 'mmpretrain', 'mmengine')


def plain_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as JSON can hold them: numbers or nested lists of them for tensors and arrays, others as they are."""
    return {name: value.tolist() if isinstance(value, (Tensor, np.ndarray, np.generic)) else value
            for name, value in metrics.items()}


def json_metrics(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """Metrics as any JSON reader takes them: ``None`` for what is not finite, as for a class without boxes."""

    def finite(value: Any) -> Any:
        if isinstance(value, list):
            return [finite(item) for item in value]
        return None if isinstance(value, float) and not math.isfinite(value) else value

    return {name: finite(value) for name, value in plain_metrics(metrics).items()}


def completed(metrics: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """The metrics of several subnets, each with all names that there are, in the order of the names.

    Where one lacks a metric that another has, it detected nothing (COCO's evaluation then gives none at all), which is
    worth 0. But a metric that is no number for those that have it, as of a class without a box, is none for that one.
    """
    names = list(dict.fromkeys(name for own in metrics for name in own))
    missing = {name: 0. if any(not _says_nothing(own[name]) for own in metrics if name in own) else math.nan
               for name in names}
    return [{name: own.get(name, missing[name]) for name in names} for own in metrics]


def _says_nothing(value: Any) -> bool:
    return value is None or isinstance(value, Real) and not is_number(value)


def without_number(lines: Sequence[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Lines of subnets of which those that detected nothing have ``None`` under metrics that are no number at all."""
    full = completed([line['metrics'] for line in lines])
    none: list[dict[str, Any]] = [{name: None for name, value in own.items() if _says_nothing(value)} for own in full]
    return [dict(line, metrics={**line['metrics'], **own}) for line, own in zip(lines, none)]


def number_metrics(metrics: Mapping[str, Any]) -> list[str]:
    """The names of the metrics that are numbers."""
    return [name for name, value in plain_metrics(metrics).items() if isinstance(value, (int, float))]


@contextmanager
def restricted(evaluator: Evaluator, dataset: Any, indices: Sequence[int], stage: str = 'val') -> Iterator[None]:
    """Let metrics take the chosen images for the whole data set.

    ``CocoMetric`` with an ``ann_file`` evaluates all images in it: what is in the others would count as not found.
    ``Evaluator.evaluate`` is then to be told the number of the chosen images. Metrics that only know what they were
    given need no restriction.

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
        for index, metric in enumerate(evaluator.metrics):
            if hasattr(metric, 'img_ids'):
                stack.enter_context(_restricted(metric, dataset, indices, f'{stage}_dataloader.dataset'))
            elif 'ann_file' in inspect.signature(type(metric)).parameters:
                raise must_be(f'{stage}_evaluator[{index}]', 'CocoMetric, derived from it, or without an annotation '
                              'file to evaluate a part of the images', type(metric))
        yield


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


class WantedMetrics:
    """Finds metrics that the config names but that do not exist, as soon as possible.

    COCO's evaluation gives no metric at all where nothing was detected, so a metric that is missing may still come.

    Args:
        wanted: place in the config -> name of a metric, or ``None``.
        scorer: evaluates subnets. MMDetection's and MMPretrain's metrics are tried out at once; of other ones, only
            the prefix is known.

    Raises:
        ConfigError: when a wanted metric cannot come, with what can.
    """

    def __init__(self, wanted: Mapping[str, str | None], scorer: Any) -> None:
        self.wanted = {key: name for key, name in wanted.items() if name is not None}
        self._metrics, self._seen = scorer.evaluator.metrics, dict[str, None]()
        if not self.wanted:
            return
        names = scorer.trial([metric for metric in self._metrics if _is_of_library(metric)])
        open_ones = [metric for metric in self._metrics if not _is_of_library(metric) or not _said(metric, names)]
        for key, name in self.wanted.items():
            if name not in names and not any(_may_give(metric, name) for metric in open_ones):
                allowed = [*names, *(f'a name that begins with {metric.prefix}/' for metric in open_ones)]
                raise must_be(key, ' or '.join(allowed), name)

    def see(self, names: Iterable[str]) -> str | None:
        """Take note of the metrics of a subnet.

        Args:
            names: their names, also of metrics that are no numbers.

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
                raise must_be(key, ' or '.join(self._seen), name)
        return next(iter(self._seen), None)


def _may_give(metric: BaseMetric, name: str) -> bool:
    """Whether a metric may be of this name, by its prefix."""
    return not metric.prefix or name.startswith(f'{metric.prefix}/')


def _said(metric: BaseMetric, names: Iterable[str]) -> bool:
    """Whether any of the names may be of a metric."""
    return any(_may_give(metric, name) for name in names)


def _is_of_library(metric: BaseMetric) -> bool:
    """Whether the names of what a metric gives do not depend on the images."""
    return type(metric).__module__.partition('.')[0] in LIBRARIES
