"""Metrics that a config names, and what becomes of metrics in files."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from numbers import Real
from typing import Any

import numpy as np
from torch import Tensor

from mmbignas.agreement.partial_evaluation import is_of_library, named_metrics
from mmbignas.agreement.trial_run import TrialFailure
from mmbignas.utils.metric_values import is_number
from mmbignas.utils.rules import must_be


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
        self._metrics, self._seen = named_metrics(scorer.evaluator), dict[str, None]()
        if not self.wanted:
            return
        try:
            names = scorer.trial() if any(is_of_library(metric) for metric, _ in self._metrics) else []
        except TrialFailure:
            return  # is said before the run, with what else is wrong
        open_ones = [prefix for metric, prefix in self._metrics
                     if not is_of_library(metric) or not _said(prefix, names)]
        for key, name in self.wanted.items():
            if name not in names and not any(_may_give(prefix, name) for prefix in open_ones):
                allowed = [*names, *(f'a name that begins with {prefix}/' for prefix in open_ones)]
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
        silent = [prefix for _, prefix in self._metrics if prefix and not _said(prefix, self._seen)]
        for key, name in self.wanted.items() if self._seen else ():
            if name not in self._seen and not any(_may_give(prefix, name) for prefix in silent):
                raise must_be(key, ' or '.join(self._seen), name)
        return next(iter(self._seen), None)


def _may_give(prefix: str | None, name: str) -> bool:
    """Whether a metric of this prefix may be of this name."""
    return not prefix or name.startswith(f'{prefix}/')


def _said(prefix: str | None, names: Iterable[str]) -> bool:
    """Whether any of the names may be of a metric with this prefix."""
    return any(_may_give(prefix, name) for name in names)
