"""Measuring, with a clock that only the measured call moves."""
from __future__ import annotations

import random
import statistics

import pytest

from mmbignas import ConfigError
from mmbignas.latency.timing import measure


class Machine:
    """A clock, and a call that takes the given seconds, one after the other, over and over."""

    def __init__(self, durations: list[float]) -> None:
        self.durations, self.now, self.runs, self.synchronized = durations, 0., 0, 0

    def clock(self) -> float:
        return self.now

    def run(self) -> None:
        self.now += self.durations[self.runs % len(self.durations)]
        self.runs += 1

    def synchronize(self) -> None:
        self.synchronized += 1


def test_median_and_spread() -> None:
    rng = random.Random(0)
    for _ in range(50):
        durations = [rng.uniform(0.5, 2.) for _ in range(rng.randrange(5, 40))]
        machine = Machine([1., 1., *durations])  # the first run, and the one that estimates
        count = len(durations)
        timing = measure(machine.run, machine.synchronize, seconds=0., min_samples=count, clock=machine.clock)
        low, median, high = statistics.quantiles(durations, n=4, method='inclusive')
        assert timing.median == pytest.approx(1e3 * median)
        assert timing.iqr == pytest.approx(1e3 * (high - low))
        assert timing.samples == count


def test_runs_for_the_time_and_at_least_so_often() -> None:
    for seconds, min_samples, expected in ((10., 5, 20), (10., 30, 30), (0., 1, 1)):
        machine = Machine([0.5])
        timing = measure(machine.run, seconds=seconds, min_samples=min_samples, clock=machine.clock)
        assert timing == (500., 0., expected)


def test_a_slow_start_does_not_count() -> None:
    machine = Machine([100., *[1.] * 1000])
    assert measure(machine.run, seconds=10., clock=machine.clock) == (1000., 0., 10)
    machine = Machine([5.] * 4 + [1.] * 1000)  # slow for a while: the warm-up takes a fifth of the time
    assert measure(machine.run, seconds=100., clock=machine.clock).median == 1000.


def test_pauses_are_not_measured() -> None:
    machine = Machine([0.5])

    def sleep(seconds: float) -> None:
        machine.now += seconds

    timing = measure(machine.run, seconds=10., pause=1.5, clock=machine.clock, sleep=sleep)
    assert timing == (500., 0., 10)  # at least 10, each after a pause
    assert measure(machine.run, seconds=40., pause=1.5, clock=machine.clock, sleep=sleep) == (500., 0., 20)
    with pytest.raises(ConfigError, match='pause must be a number >= 0, got -1'):
        measure(machine.run, pause=-1)


def test_bursts_are_synchronized_once() -> None:
    machine = Machine([0.25])
    timing = measure(machine.run, machine.synchronize, seconds=0., min_samples=7, burst_seconds=2., clock=machine.clock)
    assert timing == (250., 0., 7)
    assert machine.runs == 2 + 7 * 8
    assert machine.synchronized == 2 + 7


def test_a_burst_is_the_mean_of_its_runs() -> None:
    machine = Machine([1., 3.])
    timing = measure(machine.run, seconds=0., min_samples=4, burst_seconds=2., clock=machine.clock)
    # The estimate saw the run of 3 seconds, so that a burst is one run; from two runs on, a burst has both.
    assert timing.median == 2000.
