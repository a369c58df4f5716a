"""What this package changes in the packages underneath; each change says why it is needed.

- :func:`exact_metrics`, for a while: MMDetection's metrics round nothing.

Others stand where their topic is:

- :func:`mmbignas.utils.safe_globals.allow_mmengine_checkpoints`, once, when ``mmbignas`` is imported: torch's
  weights-only loader reads the checkpoints that MMEngine writes.
- :func:`mmbignas.utils.safe_loading.load_as_data`, once too: what is in a checkpoint stays data.
- :class:`mmbignas.utils.distributed.Alone` replaces torch's world of processes for a while.
"""
from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

from mmengine.evaluator import BaseMetric, Evaluator


@contextmanager
def exact_metrics(evaluator: Evaluator) -> Iterator[None]:
    """Let metrics have all their digits.

    MMDetection's ``CocoMetric`` rounds to three decimals, and thousands of subnets differ by less than that. Here
    ``round`` does nothing in the modules of the metrics' classes, those of parent classes included: ``CocoMetric``
    (boxes, masks, per class), ``VOCMetric``, ``OpenImagesMetric``, ``CrowdHumanMetric``, ``OVCocoMetric`` and
    ``DODCocoMetric`` round by it. What is printed into a string and read again stays rounded: the recalls of proposals
    in ``CocoMetric``, ``LVISMetric`` and ``YouTubeVISMetric``; so do ``ReIDMetrics`` and ``SemSegMetric``, which round
    arrays. MMPretrain's metrics round nothing.
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
