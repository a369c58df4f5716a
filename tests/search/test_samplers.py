"""What the samplers propose: subnets of any space that keep the limits, each once, the same for the same seed."""
from __future__ import annotations

import random
import re
import warnings
from typing import Any

import optuna
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from optuna.storages import InMemoryStorage

from mmbignas import ConfigError
from mmbignas.search import SAMPLERS, CoarseToFineSampler, Encoding, SubnetStudy
from mmbignas.search.encoding import element_of
from mmbignas.search.samplers import SamplerRecipe
from mmbignas.space import ModuleSpace, SearchSpace
from tests.cost.fake_costs import SIZES, element, small_space
from tests.search.tables import accuracy, costs_of, line_of
from tests.space import rules

SPACE = small_space(SIZES)
ARGUMENTS = [*SAMPLERS, dict(type='nsga2', population_size=4), dict(type='tpe', multivariate=False),
             dict(type='tpe', multivariate=True, group=True), dict(type='qmc', qmc_type='halton'),
             dict(type='coarse_to_fine', coarse=5, levels=2)]


@pytest.fixture(autouse=True)
def quiet() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter('ignore', optuna.exceptions.ExperimentalWarning)  # group
        yield


def propose(space: SearchSpace, count: int, seed: int = 0, objectives: Any = ('accuracy', 'macs'),
            **settings: Any) -> list[int]:
    """Numbers of the first subnets that are proposed, in order."""
    study = SubnetStudy(space, costs_of(space), objectives, InMemoryStorage(), seed=seed, **settings)
    numbers = []
    while len(numbers) < count and (proposal := study.ask()) is not None:
        assert space[proposal.number] == proposal.subnet
        numbers.append(proposal.number)
        study.tell(proposal, line_of(study, proposal))
    counts = study.counts()
    assert counts == dict(finished=len(numbers), running=0, failed=0)  # what was refused leaves no trace
    return numbers


@pytest.mark.parametrize('sampler', ARGUMENTS, ids=str)
def test_each_subnet_within_the_limits_once(sampler: Any) -> None:
    costs = costs_of(SPACE)
    macs = sorted(costs(subnet)['macs'] for subnet in SPACE.traverse())
    low, high = macs[30], macs[50]
    expected = [number for number in range(SPACE.size) if low <= costs(SPACE[number])['macs'] <= high]
    numbers = propose(SPACE, 1000, sampler=sampler, constraints=dict(macs=[low, high]))
    assert sorted(numbers) == expected


@pytest.mark.parametrize('sampler', ARGUMENTS, ids=str)
def test_the_same_seed_gives_the_same_subnets(sampler: Any) -> None:
    numbers = propose(SPACE, 15, sampler=sampler, seed=1)
    assert propose(SPACE, 15, sampler=sampler, seed=1) == numbers
    assert propose(SPACE, 15, sampler=sampler, seed=2) != numbers


@settings(max_examples=15, suppress_health_check=list(HealthCheck))
@given(space_of=rules.spaces(), sampler=st.sampled_from(list(SAMPLERS)), sized=st.booleans())
def test_any_space(space_of: tuple, sampler: str, sized: bool) -> None:
    stages, elements = space_of
    module = {'net': ModuleSpace(rules.config(elements), stages, ('x', 'y'), key='net')}
    space = SearchSpace(module, SIZES if sized else ())
    assume(space.size > 1)

    def costs(subnet: Any) -> dict[str, float]:
        macs = sum(map(sum, subnet['net'].values())) * (subnet.image_size or (0, 1))[1]
        return dict(macs=macs, params=macs + 1)

    study = SubnetStudy(space, costs, ['accuracy', 'macs'], InMemoryStorage(), sampler=sampler, seed=0)
    count = min(space.size + 1, 15)
    numbers = []
    for _ in range(count):
        if (proposal := study.ask()) is not None:
            numbers.append(proposal.number)
            study.tell(proposal, dict(**proposal.costs, metrics=dict(accuracy=accuracy(proposal.number))))
    assert len(set(numbers)) == len(numbers) == min(space.size, 15)
    active = [Encoding(space).params(space[number]) for number in numbers]
    assert [trial.params for trial in study.study.trials] == active  # blocks that are not there are left out


@pytest.mark.parametrize('sampler', list(SAMPLERS))
def test_one_objective(sampler: str) -> None:
    assert len(set(propose(SPACE, 25, objectives=['accuracy'], sampler=sampler))) == 25


@pytest.mark.parametrize('sampler', list(SAMPLERS))
def test_fractions(sampler: str) -> None:
    space = SearchSpace({'net': ModuleSpace(dict(
        depth=element([1, 2]), expand_ratio=dict(space=dict(min=[0.1], max=[0.7], stride=0.1),
                                                 sample_strategy='ordered_block_wise')), 1, key='net')})
    study = SubnetStudy(space, lambda subnet: dict(macs=sum(subnet['net']['expand_ratio']), params=1),
                        ['accuracy', 'macs'], InMemoryStorage(), sampler=sampler, seed=0)
    numbers = []
    while (proposal := study.ask()) is not None:
        numbers.append(proposal.number)
        assert space[proposal.number] == proposal.subnet
        study.tell(proposal, dict(**proposal.costs, metrics=dict(accuracy=accuracy(proposal.number))))
    assert sorted(numbers) == list(range(7 + 28))


@pytest.mark.parametrize('sampler', ['nsga2', 'coarse_to_fine'])
def test_learning_pays(sampler: str) -> None:
    """Many blocks, of which every one should be large: better than at random."""
    space = SearchSpace({'net': ModuleSpace(dict(
        depth=element([1, 4], [1, 4]), kernel_size=element(range(1, 20, 2), range(1, 20, 2), strategy='block_wise')), 2,
        key='net')})

    def search(sampler: str) -> float:
        study = SubnetStudy(space, lambda subnet: dict(macs=1, params=1), ['accuracy'], InMemoryStorage(),
                            sampler=sampler, seed=0)
        best = 0.
        for _ in range(100):
            proposal = study.ask()
            value = sum(proposal.subnet['net']['kernel_size']) / 160
            study.tell(proposal, dict(metrics=dict(accuracy=value)))
            best = max(best, value)
        return best

    assert search(sampler) > search('random')


def test_generations_survive_a_restart(tmp_path: Any) -> None:
    def study() -> SubnetStudy:
        return SubnetStudy(SPACE, costs_of(SPACE), ['accuracy', 'macs'], tmp_path / 'search.journal',
                           sampler=dict(type='nsga2', population_size=5), seed=0)

    for _ in range(3):
        own = study()
        for _ in range(7):
            proposal = own.ask()
            own.tell(proposal, line_of(own, proposal))
    generations = [trial.system_attrs['NSGAIISampler:generation'] for trial in study().study.trials]
    assert generations == [number // 5 for number in range(21)]


def test_qmc_goes_on_after_a_restart() -> None:
    whole = propose(SPACE, 20, sampler='qmc')
    storage, numbers = InMemoryStorage(), []
    for _ in range(4):
        study = SubnetStudy(SPACE, costs_of(SPACE), ['accuracy', 'macs'], storage, sampler='qmc', seed=0)
        for _ in range(5):
            proposal = study.ask()
            numbers.append(proposal.number)
            study.tell(proposal, line_of(study, proposal))
    assert numbers == whole


@pytest.mark.parametrize('sampler, message', [
    ('cmaes', 'sampler must be one of nsga2, tpe, random, qmc, coarse_to_fine, or dict(type=name, **arguments), got '
              "'cmaes'"),
    (dict(population_size=3), "or dict(type=name, **arguments), got {'population_size': 3}"),
    (5, 'or dict(type=name, **arguments), got 5'),
    (dict(type='nsga2', size=3), "sampler: nsga2 cannot be built with {'size': 3} (NSGAIISampler.__init__() got"),
    (dict(type='nsga2', population_size=1), '`population_size` must be greater than or equal to 2'),
    (dict(type='coarse_to_fine', levels=1), 'sampler.levels must be an integer >= 2, got 1'),
    (dict(type='coarse_to_fine', coarse=2.5), 'sampler.coarse must be an integer >= 1, got 2.5'),
    (dict(type='coarse_to_fine', more=1), 'sampler.more must be a number >= 0 and < 1, got 1'),
    (dict(type='coarse_to_fine', near='1'), "sampler.near must be a number from 0 to 1, got '1'"),
    (dict(type='coarse_to_fine', levles=3), "unexpected keyword argument 'levles'"),
    (dict(type='coarse_to_fine', search_space={}), 'sampler.search_space must be left out'),
    (dict(type='random', seed=1), 'sampler.seed must be left out, as the search gives its own, got 1')])
def test_samplers_that_are_refused(sampler: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=re.escape(message)):
        SamplerRecipe(sampler, {})


def test_coarse_to_fine() -> None:
    """Alone in a study of Optuna: the grid first, each point once, then changes of what is on the front."""
    distributions = Encoding(small_space()).distributions
    elements = sorted({element_of(name) for name in distributions})
    study = optuna.create_study(directions=['maximize', 'minimize'],
                                sampler=CoarseToFineSampler(distributions, levels=2, coarse=8, seed=0))
    rng, front = random.Random(0), []
    for number in range(30):
        front = [trial.params for trial in study.best_trials] if number else []
        trial = study.ask(distributions)
        if number < 8:  # 2 ** 3 points
            for element_name in elements:
                ends = {'low' if trial.params[name] == own.low else 'high' for name, own in distributions.items()
                        if element_of(name) == element_name and trial.params[name] in (own.low, own.high)}
                assert len(ends) == 1
        else:
            differences = [sum(trial.params[name] != parent[name] for name in parent) for parent in front]
            assert any(1 <= difference < len(distributions) for difference in differences)
        study.tell(trial, [rng.random(), rng.random()])
    grid = [tuple(trial.params.items()) for trial in study.trials[:8]]
    assert len(set(grid)) > 4  # the same point may come again in another trial; the wrapper refuses it
