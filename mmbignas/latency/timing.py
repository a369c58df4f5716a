"""How long a call takes."""
from __future__ import annotations

import time
from collections.abc import Callable
from typing import NamedTuple

import numpy as np

from mmbignas.utils.rules import number

WARM_UP = 0.2  # of the time


class Timing(NamedTuple):
    """A time, measured repeatedly.

    Args:
        median: milliseconds.
        iqr: interquartile range, milliseconds: half of the measurements lie within.
        samples: number of measurements.
    """

    median: float
    iqr: float
    samples: int


def measure(run: Callable[[], None], synchronize: Callable[[], None] = lambda: None, *, seconds: float = 1.,
            min_samples: int = 10, burst_seconds: float = 0., pause: float = 0.,
            clock: Callable[[], float] = time.perf_counter, sleep: Callable[[float], None] = time.sleep) -> Timing:
    """Measure a call repeatedly, after a warm-up that does not count.

    Args:
        run: what is measured.
        synchronize: waits until the device has done what ``run`` has asked of it.
        seconds: go on for so long,
        min_samples: but at least until there are so many measurements.
        burst_seconds: let calls follow each other for about so long between two looks at the clock, and take their
            mean. A short call is then measured as it is in the middle of a network, which does not wait for the device
            after each layer. 0 looks at the clock after every call.
        pause: seconds to wait before each measurement, so that a GPU that gets hot does not slow down meanwhile. They
            belong to the time above. RF-DETR (arXiv 2511.09554) is measured with 0.2.
        clock: answers seconds.
        sleep: waits for so many seconds.

    Raises:
        ConfigError: for a pause that is not a number from 0.
    """
    number(0).check(pause, 'pause')
    begin = clock()
    run()  # the first one may compile, and allocate
    synchronize()
    once = _seconds(run, synchronize, 1, clock)
    while clock() - begin < WARM_UP * seconds:
        once = min(once, _seconds(run, synchronize, 1, clock))
    burst = max(1, round(burst_seconds / max(once, 1e-9)))
    samples: list[float] = []
    begin = clock()
    while len(samples) < min_samples or clock() - begin < seconds:
        if pause:
            sleep(pause)
        samples.append(1e3 * _seconds(run, synchronize, burst, clock))
    low, median, high = np.percentile(samples, (25, 50, 75))
    return Timing(float(median), float(high - low), len(samples))


def _seconds(run: Callable[[], None], synchronize: Callable[[], None], burst: int,
             clock: Callable[[], float]) -> float:
    begin = clock()
    for _ in range(burst):
        run()
    synchronize()
    return (clock() - begin) / burst
