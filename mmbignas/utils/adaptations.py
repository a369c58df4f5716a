"""What this package changes in the packages underneath; each change says why it is needed.

- :func:`allow_mmengine_checkpoints`, once, when ``mmbignas`` is imported: torch's weights-only loader reads the
  checkpoints that MMEngine writes.
- :func:`exact_metrics`, for a while: MMDetection's metrics round nothing.

One more stands where its topic is: :class:`mmbignas.utils.distributed.Alone` replaces torch's world of processes for a
while.
"""
from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pickle import UnpicklingError
from typing import Any

import numpy as np
import torch
from mmengine.evaluator import BaseMetric, Evaluator
from mmengine.logging import HistoryBuffer
from mmengine.runner import checkpoint

FORKS_LOADER = '_safe_torch_load'  # of mmengine.runner.checkpoint, in onedl-mmengine alone
STATISTICS = ('min', 'max', 'mean', 'current')


def allow_mmengine_checkpoints() -> None:
    """Add what MMEngine's checkpoints contain to the globals that ``torch.load(..., weights_only=True)`` accepts.

    Weights-only is the default since torch 2.6. Beside the weights such a checkpoint holds the message hub:
    ``HistoryBuffer`` objects, NumPy arrays and scalars, and the buffers' four statistics methods, pickled as
    ``getattr(HistoryBuffer, 'mean')``. Exactly these are made known to the loader. Where torch is older and loads
    everything by default, nothing is done.

    MMEngine of the OneDL forks allows every ``getattr``, and loads what is refused once more without the check, so that
    a checkpoint made to do harm does it. Here it loads with ``torch.load``, as MMEngine does.
    """
    if tuple(int(number) for number in torch.__version__.split('.')[:2]) < (2, 6):
        return
    reconstruct, scalar = np.empty(0).__reduce__()[0], np.float64(0).__reduce__()[0]
    safe: list[Any] = [HistoryBuffer, np.ndarray, np.dtype, (statistics_method, 'builtins.getattr')]
    for module in ('numpy.core.multiarray', 'numpy._core.multiarray'):  # as NumPy 1 and NumPy 2 write them
        safe += [(reconstruct, f'{module}._reconstruct'), (scalar, f'{module}.scalar')]
    safe += {type(np.dtype(code)) for code in '?bhilqBHILQefd'}  # numbers; never object, which can hold anything
    torch.serialization.add_safe_globals(safe)
    if hasattr(checkpoint, FORKS_LOADER):
        setattr(checkpoint, FORKS_LOADER, torch.load)


def statistics_method(owner: type, name: str) -> Callable[..., Any]:
    """Stand in for ``getattr`` in a checkpoint, for the statistics methods of ``HistoryBuffer`` alone.

    Args:
        owner: The first argument of the ``getattr`` call in the checkpoint.
        name: Its second argument.

    Raises:
        UnpicklingError: Anything else is asked for, as a checkpoint made to do harm would.
    """
    if owner is not HistoryBuffer or name not in STATISTICS:
        raise UnpicklingError(f'the checkpoint asks for attribute {name!r} of {owner!r}, which is not safe to load')
    return getattr(HistoryBuffer, name)


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
