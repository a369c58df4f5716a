"""The regression, and what is picked by it."""
from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest
from optuna.storages import InMemoryStorage
from scipy.stats import kendalltau

from mmbignas import ConfigError
from mmbignas.search import AccuracyPredictor, SubnetStudy
from mmbignas.search.guide import Guide, beaten
from mmbignas.space import Subnet
from tests.cost.fake_costs import SIZES, small_space
from tests.search.tables import costs_of, line_of, tiny_space

SPACE = small_space(SIZES)
COSTS = costs_of(SPACE)


def truth(subnet: Subnet) -> float:
    """Grows with everything, less and less."""
    kernels, widths = subnet['backbone']['kernel_size'], subnet['backbone']['out_channel']
    return float(np.log(sum(kernels)) + 0.3 * np.sqrt(widths[0]) + 0.1 * subnet['head']['out_channel'][0]
                 + 0.2 * (subnet.image_size[1] > 32))


def sample(count: int, seed: int = 0) -> tuple[list[Subnet], list[Any], list[float]]:
    numbers = random.Random(seed).sample(range(SPACE.size), count)
    subnets = [SPACE[number] for number in numbers]
    return subnets, [COSTS(subnet) for subnet in subnets], [truth(subnet) for subnet in subnets]


def test_it_ranks_what_it_has_not_seen() -> None:
    subnets, costs, values = sample(SPACE.size)
    predictor = AccuracyPredictor(SPACE).fit(subnets[:60], costs[:60], values[:60])
    assert kendalltau(predictor.predict(subnets[60:], costs[60:]), values[60:]).statistic > 0.8
    correlation = predictor.cross_validated(subnets[:60], costs[:60], values[:60])
    assert correlation.tau > 0.8
    assert correlation.subnets == 60
    assert correlation == AccuracyPredictor(SPACE).cross_validated(subnets[:60], costs[:60], values[:60])
    noise = np.random.default_rng(0).random(60)
    assert abs(predictor.cross_validated(subnets[:60], costs[:60], noise).tau) < 0.3  # nothing is learned from itself
    with pytest.raises(ConfigError, match='number of subnets must be at least 5, one per fold, got 3'):
        predictor.cross_validated(subnets[:3], costs[:3], values[:3])


def test_blocks_that_are_not_there_are_zero() -> None:
    features = AccuracyPredictor(SPACE).features([SPACE.min(), SPACE.max()], [COSTS(SPACE.min()), COSTS(SPACE.max())])
    assert (features[0] == 0).sum() == 1  # the second block of the first stage
    genes = features.shape[1] - 2
    assert (features[1, :genes] == 1).all()
    assert (features[0, :genes] < 1).all()
    assert features[1, genes] == pytest.approx(np.log(COSTS(SPACE.max())['macs']))


def test_beaten() -> None:
    rng = np.random.default_rng(0)
    points, others = rng.integers(0, 4, (30, 2)), rng.integers(0, 4, (5, 2))
    for point, own in zip(points, beaten(points, others)):
        assert own == any((other <= point).all() and tuple(other) != tuple(point) for other in others)


def test_it_picks_what_nothing_is_expected_to_beat() -> None:
    guide = Guide(dict(candidates=40, min_subnets=30), SPACE, COSTS, ['accuracy', 'macs'])
    numbers = random.Random(1).sample(range(SPACE.size), 60)
    results = {number: [truth(SPACE[number]), COSTS(SPACE[number])['macs']] for number in numbers}
    assert not guide.learn(dict(list(results.items())[:29]))
    assert guide.learn(results)
    candidates = [SPACE[number] for number in range(SPACE.size) if number not in results]
    costs = [COSTS(subnet) for subnet in candidates]
    predictor = AccuracyPredictor(SPACE).fit([SPACE[number] for number in results],
                                             [COSTS(SPACE[number]) for number in results],
                                             [value for value, _ in results.values()])
    expected = [(value, cost['macs']) for value, cost in zip(predictor.predict(candidates, costs), costs)]
    good = {subnet for subnet, (value, macs) in zip(candidates, expected)
            if not any(other >= value and cost <= macs and (other, cost) != (value, macs)
                       for other, cost in [*expected, *results.values()])}
    assert {guide.pick(candidates, random.Random(seed)) for seed in range(200)} == good


def test_in_a_search() -> None:
    def search(**settings: Any) -> list[int]:
        study = SubnetStudy(SPACE, COSTS, ['accuracy', 'macs'], InMemoryStorage(), sampler='random', seed=0, **settings)
        numbers = []
        for _ in range(40):
            proposal = study.ask()
            numbers.append(proposal.number)
            line = line_of(study, proposal)
            study.tell(proposal, {**line, 'metrics': dict(accuracy=truth(proposal.subnet))})
        return numbers

    def on_front(numbers: list[int]) -> int:
        points = np.array([[-truth(subnet), COSTS(subnet)['macs']] for subnet in SPACE.traverse()])
        return int((~beaten(points[numbers], points)).sum())

    plain, guided = search(), search(predictor=dict(candidates=20, min_subnets=15))
    assert plain[:15] == guided[:15]
    assert on_front(guided) > on_front(plain)
    assert len(set(guided)) == 40


def test_to_the_last_subnet() -> None:
    space = tiny_space()
    study = SubnetStudy(space, costs_of(space), ['accuracy', 'macs'], InMemoryStorage(), seed=0,
                        predictor=dict(candidates=10, min_subnets=5))
    numbers = []
    while (proposal := study.ask()) is not None:
        numbers.append(proposal.number)
        study.tell(proposal, line_of(study, proposal))
    assert sorted(numbers) == list(range(space.size))


@pytest.mark.parametrize(('config', 'message'), [
    (dict(candidate=5), "predictor must be a dict with keys among candidates, min_subnets, got key 'candidate'"),
    (dict(candidates=1), 'predictor.candidates must be an integer >= 2, got 1'),
    (dict(min_subnets=True), 'predictor.min_subnets must be an integer >= 2, got True')])
def test_settings_that_are_refused(config: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Guide(config, SPACE, COSTS, ['accuracy'])
