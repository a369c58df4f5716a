"""The metrics that a config names, and those that there are."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmengine.evaluator import BaseMetric, Evaluator

from mmbignas.engine.trial_evaluation import is_of_library, trial_evaluation
from mmbignas.errors import ConfigError


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

        MMDetection's and MMPretrain's are asked by :func:`~mmbignas.engine.trial_evaluation.trial_evaluation`; of one's
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
