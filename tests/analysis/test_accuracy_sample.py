"""What evaluated subnets reach: rankings, fronts and tables, against a look at all pairs."""
import csv
import json
import random

import pytest

from mmbignas.analysis import AccuracySample, EvaluatedSubnet
from tests.analysis.evaluated import METRIC1, METRIC2, SIZES, sample, subnets


def beaten(own, others, cost, metric):
    return any(getattr(other, cost) <= getattr(own, cost) and other.metric(metric) >= own.metric(metric)
               and (getattr(other, cost), other.metric(metric)) != (getattr(own, cost), own.metric(metric))
               for other in others)


@pytest.mark.parametrize('seed', range(5))
@pytest.mark.parametrize('cost', ['macs', 'params', 'latency_ms'])
def test_front(seed, cost):
    own = AccuracySample(subnets(120, SIZES, True, seed), METRIC1, METRIC2, {}, (None, None), 10**6)
    for metric in (METRIC1, METRIC2):
        front = own.front(cost, metric)
        expected = [one for one in own.subnets if not beaten(one, own.subnets, cost, metric)]
        assert {one.number for one in front} <= {one.number for one in expected}
        points = [(getattr(one, cost), one.metric(metric)) for one in front]
        assert points == sorted(points) and set(points) == {
            (getattr(one, cost), one.metric(metric)) for one in expected}


@pytest.mark.parametrize('seed', range(5))
def test_ten_best_near_a_mark(seed):
    found = subnets(300, seed=seed)
    macs = random.Random(seed).choice(found).macs
    own = AccuracySample(found, METRIC1, METRIC2, dict(baseline=macs), (None, None), 10**6)
    near = [one for one in found if .99 * macs <= one.macs <= 1.01 * macs]
    expected = sorted(near, key=lambda one: one.metric(METRIC1), reverse=True)[:10]
    best = own.best_near(macs)
    assert [one.metric(METRIC1) for one in best] == [one.metric(METRIC1) for one in expected]
    assert len(best) == min(len(near), 10) >= 1
    assert own.best().metric(METRIC1) == max(one.metric(METRIC1) for one in found)


def test_equal_metrics_are_ordered_by_cost():
    found = [EvaluatedSubnet(number, {}, (8, 8), macs, 1, None, dict(mAP=.5)) for number, macs in
             enumerate([1005, 995, 1000])]
    own = AccuracySample(found, 'mAP', None, dict(baseline=1000), (None, None), 3)
    assert [one.number for one in own.best_near(1000)] == [1, 2, 0]
    assert [one.number for one in own.front('macs')] == [1]


def test_report():
    macs = sample(200).subnets[7].macs
    own = sample(200, marks=dict(baseline=macs, large=9 * 10**11))
    text = own.report()
    assert f'best: subnet {own.best().number}' in text
    assert 'large, 900.00 GMACs: no subnet within 1 %; the nearest is' in text
    rows = [line for line in text.splitlines() if line.startswith('| ') and line.count('%') == 1]
    best = own.best_near(macs)
    assert [row.split('|')[1].strip() for row in rows] == [str(one.number) for one in best]


def test_report_of_several_image_sizes():
    own = sample(200, SIZES, latency=True)
    text = own.report()
    for height, width in SIZES:
        assert f'{height} x {width}' in text
    summary = json.loads(json.dumps(own.summary(), allow_nan=False))
    assert [part['image_size'] for part in summary['image_sizes']] == [list(size) for size in SIZES]
    for part, size in zip(summary['image_sizes'], SIZES):
        chosen = [one for one in own.subnets if one.image_size == size]
        assert part['evaluated'] == len(chosen)
        assert part['best']['metrics'][METRIC1] == max(one.metric(METRIC1) for one in chosen)
    assert set(summary['fronts']) == {'macs', 'params', 'latency_ms'}


@pytest.mark.parametrize('found', [[], [EvaluatedSubnet(3, {}, (8, 8), 10, 5)]])
def test_nothing_detected_and_nothing_there(found):
    own = AccuracySample(found, None, None, dict(baseline=10), (None, None), 4)
    assert 'nothing was detected' in own.report()
    assert own.summary()['evaluated'] == len(found)
    assert [one.metric('mAP') for one in own.subnets] == [0.] * len(found)


def test_from_line():
    line = dict(number=str(2**60), subnet_settings=dict(neck=dict(depth=[1])), image_size=[8, 16], macs=7, ops=8,
                params=5, latency_ms=1.5, metrics=dict(mAP=.25), seconds=1., seed=0)
    own = EvaluatedSubnet.from_line(line)
    assert (own.number, own.image_size, own.macs, own.params, own.latency_ms) == (2**60, (8, 16), 7, 5, 1.5)
    assert (own.metric('mAP'), own.metric('other'), own.metric(None)) == (.25, 0., 0.)


def test_csv(tmp_path):
    macs = sample(80, SIZES[:2], latency=True).subnets[7].macs
    own = sample(80, SIZES[:2], latency=True, marks=dict(baseline=macs))
    own.write_csv(tmp_path / 'a.csv')
    with (tmp_path / 'a.csv').open() as file:
        rows = list(csv.DictReader(file))
    front, best = own.front('macs'), own.best_near(macs)
    assert len(rows) == 80
    for row, one in zip(rows, own.subnets):
        assert (int(row['number']), int(row['macs']), int(row['params'])) == (one.number, one.macs, one.params)
        assert float(row['latency_ms']) == one.latency_ms
        for name in (METRIC1, METRIC2):
            assert row[name] == (repr(one.metrics[name]) if one.metrics else '')
        assert row['backbone.out_channel'] == ' '.join(map(str, one.settings['backbone']['out_channel']))
        assert row['pareto'] == str(int(any(other is one for other in front)))
        places = [place for place, other in enumerate(best, 1) if other is one]
        assert row['best_near_baseline'] == ''.join(map(str, places))


def test_what_is_no_number_is_neither_ranked_nor_shown_as_one():
    """Not as 0 either, which would be the best of these."""
    values = {1: dict(mAP=-.5, other=None), 2: dict(mAP=None), 3: {}, 4: dict(mAP=float('nan')), 5: dict(mAP=10**400),
              6: dict(mAP='high'), 7: dict(mAP=-.25)}
    found = [EvaluatedSubnet(number, {}, (8, 8), 1000 + number, 1, None, own) for number, own in values.items()]
    own = AccuracySample([one for one in found if one.metrics], 'mAP', 'other', dict(baseline=1003), (None, None), 9)
    assert own.best().number == 7
    assert [one.number for one in own.front('macs')] == [1, 7]
    assert [one.number for one in own.best_near(1003)] == [7, 1]
    assert 'nan' not in own.report()
    row = next(line for line in own.report().splitlines() if line.startswith('| 1 '))
    assert [cell.strip() for cell in row.split('|')][4:6] == ['-0.5000', '-']
    json.dumps(own._results()['best'], allow_nan=False)
    assert AccuracySample(found, 'mAP', None, {}, (None, None), 9).best().number == 3  # nothing detected is 0
