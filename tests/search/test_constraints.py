"""Limits, against plain loops over spaces that are small enough to list, and in one that is not."""
from __future__ import annotations

import random
import re
from typing import Any

import pytest

from mmbignas import ConfigError
from mmbignas.search import Constraints
from mmbignas.search import constraints as module
from mmbignas.space import ModuleSpace, SearchSpace, Subnet
from tests.cost.fake_costs import element, small_space
from tests.search.tables import costs_of

SPACE = small_space()
COSTS = costs_of(SPACE)
MACS = sorted(COSTS(subnet)['macs'] for subnet in SPACE.traverse())
HUGE = SearchSpace({'backbone': ModuleSpace(
    dict(depth=element([20]), out_channel=element(range(100, 200)),
         kernel_size=element([1, 3, 5, 7], strategy='block_wise')), 1, key='backbone')})


def test_limits_in_all_forms() -> None:
    def limits(**limits: Any) -> dict[str, tuple[float, float]]:
        return Constraints(limits, SPACE, lambda subnet: dict(macs=500, params=2_000_000, latency_ms=3.)).limits

    assert limits(macs='1K') == dict(macs=(0, 1000))
    assert limits(macs=[None, '0.5K'], params=['1M', '2.5M']) == dict(macs=(0, 500), params=(10**6, 2_500_000))
    assert limits(latency_ms=12.5, macs=[100, None]) == dict(latency_ms=(0, 12.5), macs=(100, float('inf')))
    assert Constraints(None, SPACE, COSTS).limits == {}


@pytest.mark.parametrize('limits, message', [
    (dict(flops=5), "constraints must be a dict with keys among macs, params, latency_ms, got key 'flops'"),
    ([5], 'constraints must be a dict with keys among macs, params, latency_ms, got [5]'),
    (dict(latency_ms=5), 'constraints.latency_ms must be left out, as only macs, params are known '),
    (dict(macs='many'), 'constraints.macs'),
    (dict(macs=[1, 2, 3]), 'constraints.macs must be the most, or [low, high], got [1, 2, 3]'),
    (dict(macs=['2K', '1K']), "constraints.macs must be [low, high] with low <= high, got ['2K', '1K']"),
    (dict(macs=MACS[0] - 1), 'constraints.macs must be a limit that the subnets can meet, which have '
                             f'{MACS[0]:,} to {MACS[-1]:,}, got {MACS[0] - 1}'),
    (dict(macs=['1G', None]), "got ['1G', None]"),
    (dict(macs=MACS[0], params=[10 * MACS[-1] - 50, None]), 'constraints: no subnet was found that meets {')])
def test_limits_that_are_refused(limits: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        Constraints(limits, SPACE, COSTS)


def test_milliseconds() -> None:
    with pytest.raises(ConfigError, match='constraints.latency_ms must be a number of milliseconds > 0, got 0'):
        Constraints(dict(latency_ms=0), SPACE, lambda subnet: dict(macs=1, params=1, latency_ms=1.))


@pytest.mark.parametrize('seed', range(5))
def test_none_is_missed_in_a_small_space(seed: int) -> None:
    low, high = MACS[10], MACS[40]
    constraints = Constraints(dict(macs=[low, high]), SPACE, COSTS)
    expected = {number for number in range(SPACE.size) if low <= COSTS(SPACE[number])['macs'] <= high}
    rng, taken = random.Random(seed), set[int]()
    while (subnet := constraints.find(rng, taken)) is not None:
        assert constraints.allow(subnet)
        number = SPACE.index(subnet)
        assert number not in taken
        taken.add(number)
    assert taken == expected


def test_narrow_limits_in_a_huge_space() -> None:
    costs = costs_of(HUGE)
    target = costs(HUGE.sample(random.Random(5)))['macs']
    constraints = Constraints(dict(macs=[target * 1.7, target * 1.705]), HUGE, costs)  # far from what is drawn
    found = [constraints.find(random.Random(seed), ()) for seed in range(2)]
    assert all(target * 1.7 <= costs(subnet)['macs'] <= target * 1.705 for subnet in found)
    assert found[0] != found[1]


def test_the_excess() -> None:
    def costs(subnet: Subnet) -> dict[str, float]:
        return dict(macs=150, params=30)

    constraints = Constraints(dict(macs=[100, 200], params=40), SPACE, costs)
    assert constraints.excess(dict(macs=100, params=40)) == 0
    assert constraints.excess(dict(macs=50, params=50)) == pytest.approx(0.5 + 0.25)
    assert constraints.excess(dict(macs=300, params=1)) == pytest.approx(0.5)
    assert module.WALKED > 5184  # the demo's space is searched through
