"""How far a long evaluation is."""
from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from typing import Any

from mmbignas.analysis.accuracy_sample import EvaluatedSubnet
from mmbignas.cost.units import format_macs

REPORT_SECONDS = 10.


class Progress:
    """Says now and then how many subnets are finished, which is the best so far, and how long the rest will take.

    Args:
        total: how many there are in all.
        done: how many are finished already.
        log: is told.
    """

    def __init__(self, total: int, done: int, log: Callable[[str], Any]) -> None:
        self.total, self.log = total, log
        self._before, self._begin, self._reported = done, time.time(), 0.

    def update(self, done: int, line: Mapping[str, Any], lines: Callable[[], Iterable[Mapping[str, Any]]],
               metric: str | None) -> None:
        """Take note of a finished subnet.

        Args:
            done: how many are finished, those of other processes too.
            line: of the one that has just been finished.
            lines: gives those of all of them.
            metric: name of the metric that makes one better than another.
        """
        if time.time() - self._reported < REPORT_SECONDS and done < self.total:
            return
        self._reported = time.time()
        seconds = (time.time() - self._begin) / max(done - self._before, 1)
        best = max(map(EvaluatedSubnet.from_line, lines()), key=lambda own: own.metric(metric))
        left = timedelta(seconds=round(seconds * max(self.total - done, 0)))
        self.log(f'{done}/{self.total} subnets: {_described(EvaluatedSubnet.from_line(line), metric)}; best so far '
                 f'{_described(best, metric)}; {seconds:.2f} s a subnet, {left} left')


def _described(subnet: EvaluatedSubnet, metric: str | None) -> str:
    value = f'{metric} {subnet.metric(metric):.4f}, ' if metric else ''
    return f'{value}{format_macs(subnet.macs)} (subnet {subnet.number})'
