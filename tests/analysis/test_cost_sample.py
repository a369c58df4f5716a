"""Numbers about a space, against NumPy, the statistics module and fractions."""
from __future__ import annotations

import json
import random
import re
import statistics
from fractions import Fraction
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbignas.analysis import CostSample
from mmbignas.cost import Cost
from tests.cost.fake_costs import SIZES, FakeCostModel, small_space

BASELINE = 240_000


def whole_space(**marks: int) -> CostSample:
    """Every subnet of a small space."""
    cost_model = FakeCostModel(small_space(SIZES))
    space = cost_model.space
    costs = [cost_model(space[number]) for number in range(space.size)]
    return CostSample([own.macs for own in costs], [own.params for own in costs],
                      [space[number].image_size for number in range(space.size)], space.size, 150,
                      cost_model(space.min()), cost_model(space.max()), marks=marks)


def of(macs: list[int], **arguments: Any) -> CostSample:
    """A sample with these MACs and the same numbers of parameters."""
    ends = [Cost(own, own, own, {}) for own in (min(macs), max(macs))]
    return CostSample(macs, macs, [(32, 32)] * len(macs), 10**40, len(macs), *ends, **arguments)


def test_percentiles_of_a_whole_space() -> None:
    sample = whole_space()
    percentiles = sample.percentiles()
    assert list(percentiles) == ['macs', 'params']
    for values, found in ((sample.macs, percentiles['macs']), (sample.params, percentiles['params'])):
        steps = statistics.quantiles(values, n=20, method='inclusive')  # 5 %, 10 %, ...
        expected = {'0': min(values), '5': steps[0], '25': steps[4], '50': steps[9], '75': steps[14], '95': steps[18],
                    '100': max(values)}
        assert list(found) == list(expected)
        for percent, value in expected.items():
            assert abs(found[percent] - value) <= 0.5
            assert type(found[percent]) is int
    assert percentiles['macs']['0'] == sample.smallest.macs
    assert percentiles['macs']['100'] == sample.largest.macs


@given(st.lists(st.integers(1, 10**13), min_size=1, max_size=30), st.integers(1, 10**13), st.integers(1, 50))
def test_near(macs: list[int], mark: int, percent: int) -> None:
    edges = [mark - mark * percent // 100, mark + mark * percent // 100, mark]
    macs = macs + edges
    expected = [own for own in macs if abs(Fraction(own, mark) - 1) <= Fraction(percent, 100)]
    assert of(macs).near(mark, percent) == len(expected) >= 3


def test_summary() -> None:
    sample = whole_space(baseline=BASELINE, large=10**9)
    summary = json.loads(json.dumps(sample.summary()))
    assert (summary['space_size'], summary['drawn'], summary['kept']) == (144, 150, 144)
    assert summary['flops_range'] == [None, None]
    assert summary['smallest'] == dict(macs=sample.smallest.macs, ops=sample.smallest.ops,
                                       params=sample.smallest.params)
    assert summary['largest']['macs'] == max(sample.macs) == 1536 * 308
    assert summary['macs'] == sample.percentiles()['macs']
    one, five = (sum(abs(own - BASELINE) <= BASELINE / 100 * percent for own in sample.macs) for percent in (1, 5))
    assert 0 < one < five < 144
    assert summary['marks'] == dict(
        baseline=dict(macs=BASELINE, within_1_percent=one, share_within_1_percent=one / 144,
                      within_5_percent=five, share_within_5_percent=five / 144),
        large=dict(macs=10**9, within_1_percent=0, share_within_1_percent=0, within_5_percent=0,
                   share_within_5_percent=0))


def test_report() -> None:
    report = whole_space(baseline=BASELINE).report()
    assert report.startswith('144 subnets in 150 draws; the space has 144\n')
    cells = [re.split(r' *\| *', line.strip('| ')) for line in report.splitlines() if line.startswith('|')]
    assert cells[0] == ['percentile', 'MACs', 'parameters']
    sample = whole_space()
    assert cells[1] == ['smallest of the space', f'{sample.smallest.macs / 1e3:.2f} KMACs', '2.11 K']
    assert cells[-1] == ['largest of the space', f'{sample.largest.macs / 1e3:.2f} KMACs', '3.08 K']
    assert [row[0] for row in cells[2:-1]] == ['0 %', '5 %', '25 %', '50 %', '75 %', '95 %', '100 %']
    middle = statistics.median(sample.macs)
    assert cells[5] == ['50 %', f'{middle / 1e3:.2f} KMACs', f'{statistics.median(sample.params) / 1e3:.2f} K']
    inside = [sum(abs(own - BASELINE) <= BASELINE / 100 * percent for own in sample.macs) for percent in (1, 5)]
    assert report.endswith(f'baseline, 240.00 KMACs: {inside[0]} ({inside[0] / 1.44:.2f}%) within 1 %, '
                           f'{inside[1]} ({inside[1] / 1.44:.2f}%) within 5 %')


def test_latencies() -> None:
    rng = random.Random(0)
    latencies = [rng.uniform(1, 9) for _ in range(31)]
    sample = of([rng.randrange(10**6) for _ in range(31)], latencies=latencies)
    assert sample.summary()['latency_ms']['50'] == pytest.approx(statistics.median(latencies), abs=1e-4)
    assert sample.summary()['latency_ms']['100'] == pytest.approx(max(latencies), abs=1e-4)
    rows = [line for line in sample.report().splitlines() if line.startswith('|')]
    assert rows[0].rstrip(' |').endswith('latency')
    assert rows[5].rstrip(' |').endswith(f'| {statistics.median(latencies):.2f} ms')
    assert 'latency' not in of([1, 2]).report()
