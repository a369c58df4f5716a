"""Rank correlations against definitions; what is said and drawn about them."""
import json
import math
import random
from itertools import combinations, permutations

import numpy as np
import pytest
from matplotlib.image import imread
from scipy import stats

from mmbignas import dependencies
from mmbignas.analysis.accuracy_sample import EvaluatedSubnet
from mmbignas.errors import DependencyError
from mmbignas.ranking.correlation import RankComparison, draw_ranks, kendall_tau, spearman_rho


def values(rng, count, ties=False):
    return [rng.randint(0, 3) / 4 if ties else rng.random() for _ in range(count)]


def tau_by_definition(first, second):
    agreements = [np.sign(first[i] - first[j]) * np.sign(second[i] - second[j])
                  for i, j in combinations(range(len(first)), 2)]
    untied = [sum(own[i] != own[j] for i, j in combinations(range(len(own)), 2)) for own in (first, second)]
    return sum(agreements) / math.sqrt(untied[0] * untied[1])


@pytest.mark.parametrize('ties', [False, True])
def test_values(ties):
    rng = random.Random(int(ties))
    for _trial in range(15):
        first, second = (values(rng, rng.randint(3, 30), ties) for _ in range(2))
        first, second = first[:len(second)], second[:len(first)]
        if len(set(first)) == 1 or len(set(second)) == 1:
            continue
        assert kendall_tau(first, second).value == pytest.approx(tau_by_definition(first, second))
        ranks = [stats.rankdata(own) for own in (first, second)]
        assert spearman_rho(first, second).value == pytest.approx(np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize('ties', [False, True])
def test_p_of_few_is_exact(ties):
    rng = random.Random(2)
    for _trial in range(5):
        first, second = values(rng, 6), values(rng, 6, ties)
        for function, by_definition in ((kendall_tau, tau_by_definition),
                                        (spearman_rho, lambda *both: stats.spearmanr(*both).statistic)):
            found = abs(by_definition(first, second))
            as_strong = [abs(by_definition(first, order)) >= found - 1e-9 for order in permutations(second)]
            assert function(first, second).p == pytest.approx(np.mean(as_strong))


def test_p_of_more():
    """scipy's is exact for Kendall's tau without ties."""
    rng = random.Random(3)
    for count, weight in ((8, .3), (10, 1), (14, 2)):
        first = values(rng, count)
        second = [weight * own + rng.random() for own in first]
        expected = stats.kendalltau(first, second, method='exact').pvalue
        assert kendall_tau(first, second).p == pytest.approx(expected, abs=4 * math.sqrt(expected / 9999) + 2e-4)


def test_interval():
    """It holds the value of the population in most samples, and shrinks as they grow."""
    rng = np.random.default_rng(0)
    truth, widths = 2 / math.pi * math.asin(.8), {}  # tau of a normal distribution with correlation 0.8
    for count in (10, 30):
        inside = []
        for _trial in range(15):
            first = rng.normal(size=count)
            found = kendall_tau(first, .8 * first + .6 * rng.normal(size=count))
            assert -1 <= found.low <= found.high <= 1
            inside.append(found.low <= truth <= found.high)
            widths.setdefault(count, []).append(found.high - found.low)
        assert sum(inside) >= 12
    assert np.mean(widths[30]) < np.mean(widths[10]) / 1.4


def test_same_seed_same_interval():
    first, second = [.1, .2, .3, .4, .5, .6, .7, .8], [.3, .1, .2, .5, .4, .8, .7, .6]
    assert kendall_tau(first, second) == kendall_tau(first, second)
    assert kendall_tau(first, second, 1).value == kendall_tau(first, second).value


def subnets(metrics, base=100):
    return [EvaluatedSubnet(base + index, {}, (64, 64), 10**8 + index, 10**6 + index, metrics={'coco/bbox_mAP': value}
                            if value else {}) for index, value in enumerate(metrics)]


def test_report():
    comparison = RankComparison(subnets([.1, .4, 0, .3]), subnets([.2, .5, 0, .6]), 'coco/bbox_mAP')
    lines = comparison.report().splitlines()
    cells = [[cell.strip() for cell in line.strip('|').split('|')] for line in lines if line.startswith('| 1')]
    assert [(row[0], *row[3:]) for row in cells] == [
        ('101', '0.4000', '0.5000', '1', '2'), ('103', '0.3000', '0.6000', '2', '1'),
        ('100', '0.1000', '0.2000', '3', '3'), ('102', '0.0000', '0.0000', '4', '4')]
    assert 'Kendall tau 0.67' in comparison.report() and 'Spearman rho 0.80' in comparison.report()
    assert 'in about 83 % of cases' in comparison.report()
    summary = json.loads(json.dumps(comparison.summary(), allow_nan=False))
    assert (summary['n'], summary['kendall_tau']['value']) == (4, pytest.approx(2 / 3))
    assert summary['subnets'][1] == dict(number=101, macs=10**8 + 1, params=10**6 + 1, supernet=.4, alone=.5)


def test_what_shows_nothing_is_said_to():
    rng = random.Random(0)
    guess = RankComparison(subnets(values(rng, 8)), subnets(values(rng, 8)), 'coco/bbox_mAP')
    assert 'includes guessing' in guess.report()
    rising = subnets([.1 * own for own in range(1, 9)])
    sure = RankComparison(rising, rising, 'coco/bbox_mAP')
    assert 'includes guessing' not in sure.report() and 'below guessing' not in sure.report()
    inverse = RankComparison(rising, rising[::-1], 'coco/bbox_mAP')
    assert inverse.tau.high < 0
    assert 'includes guessing' not in inverse.report()
    assert 'The interval lies below guessing: the ranking is the wrong way round' in inverse.report()
    equal = RankComparison(subnets([.5] * 4), subnets([.1, .2, .3, .4]), 'coco/bbox_mAP')
    assert 'nothing can be said' in equal.report()
    assert equal.summary()['kendall_tau'] == dict(value=None, p=None, interval=[None, None])


def test_picture(tmp_path):
    comparison = RankComparison(subnets([.1, .4, .2]), subnets([.2, .5, .1], 10**20), 'coco/bbox_mAP')
    figure = draw_ranks(comparison, tmp_path / 'trust.png')
    [axis] = figure.axes
    assert axis.collections[0].get_offsets().tolist() == [[.1, .2], [.4, .5], [.2, .1]]
    assert [text.get_text() for text in axis.texts] == ['100', '101', '102']
    assert imread(tmp_path / 'trust.png').shape[2] in (3, 4)
    equal = RankComparison(subnets([.5] * 3, 10**20), subnets([.1, .2, .3]), 'coco/bbox_mAP')
    figure = draw_ranks(equal, tmp_path / 'equal.png')
    assert figure.axes[0].texts[0].get_text() == '10000...'


def test_without_scipy(monkeypatch):
    def missing(name):
        raise ImportError(name)

    monkeypatch.setattr(dependencies, 'import_module', missing)
    with pytest.raises(DependencyError, match=r'pip install "mmbignas\[search\]"'):
        kendall_tau([1, 2, 3], [1, 2, 3])
