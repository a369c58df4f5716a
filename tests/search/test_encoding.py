"""Subnets as parameters, against brute force over spaces that are small enough to list."""
from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from optuna.distributions import FloatDistribution, IntDistribution

from mmbignas.search import Encoding
from mmbignas.search.encoding import element_of, nearest
from mmbignas.space import Genome, ModuleSpace, SearchSpace
from mmbignas.space.strategies import Chain
from tests.cost.fake_costs import element, small_space
from tests.space import rules


def build(space_of: tuple, image_sizes: Any = ()) -> SearchSpace:
    stages, elements = space_of
    return SearchSpace({'net': ModuleSpace(rules.config(elements), stages, ('x', 'y'), key='net')}, image_sizes)


def contains(encoding: Encoding, name: str, value: Any) -> bool:
    distribution = encoding.distributions[name]
    return distribution._contains(distribution.to_internal_repr(value))


@given(space_of=rules.spaces(), sized=st.booleans(), seed=st.integers(0, 10**6))
def test_there_and_back(space_of: tuple, sized: bool, seed: int) -> None:
    space = build(space_of, [(32, 32), (32, 48), (64, 64)] if sized else ())
    encoding, genome, rng = Encoding(space), Genome(space), random.Random(seed)
    assert len(encoding.distributions) == len(genome.genes)
    for _ in range(5):
        subnet = space.sample(rng)
        params = encoding.params(subnet)
        inactive = {str(gene) for gene, index in zip(genome.genes, genome.encode(subnet)) if index < 0}
        assert set(params) == set(encoding.distributions) - inactive
        filled = encoding.filled(params)
        assert set(filled) == set(encoding.distributions)
        assert params.items() <= filled.items()
        assert all(contains(encoding, name, value) for name, value in filled.items())
        assert encoding.subnet(filled) == subnet
        anything = {name: rng.choice(values_of(encoding.distributions[name])) for name in inactive}
        assert encoding.subnet({**filled, **anything}) == subnet  # what is left out does not matter


@given(space_of=rules.spaces(), seed=st.integers(0, 10**6))
def test_any_draw_is_a_subnet(space_of: tuple, seed: int) -> None:
    space = build(space_of)
    assume(space.size > 1)
    encoding, rng = Encoding(space), random.Random(seed)
    for _ in range(10):
        params = {name: rng.choice(values_of(own)) for name, own in encoding.distributions.items()}
        subnet = encoding.subnet(params)
        assert space.canonical(subnet) == subnet
        kept = encoding.params(subnet)
        vector = [values_of(own).index(params[name]) for name, own in encoding.distributions.items()]
        try:
            expected = Genome(space).decode(vector)
        except ValueError:
            assert any(kept[name] != params[name] for name in kept)  # moved to obey a rule
        else:
            assert subnet == expected


def values_of(distribution: Any) -> list[Any]:
    count = round((distribution.high - distribution.low) / distribution.step) + 1
    return [distribution.low + index * distribution.step for index in range(count)]


def test_what_is_shown() -> None:
    space = SearchSpace({'net': ModuleSpace(dict(
        depth=element([1, 2], [1]), out_channel=element([16, 24, 32], [8, 16, 32]),
        kernel_size=element([3, 5], [3, 5], strategy='net_wise'),
        expand_ratio=dict(space=dict(min=[0.5, 1.1], max=[1.1, 2], stride=[0.2, 0.3]), sample_strategy='block_wise')),
        2, key='net')}, [(64, 64), (64, 96)])
    assert Encoding(space).distributions == {
        'net.depth (stage 0)': IntDistribution(1, 2),
        'net.out_channel (stage 0)': IntDistribution(16, 32, step=8),
        'net.out_channel (stage 1)': IntDistribution(0, 2),  # not evenly spaced: an index
        'net.kernel_size': IntDistribution(3, 5, step=2),
        'net.expand_ratio (stage 0, block 0)': FloatDistribution(0.5, 1.1, step=0.2),
        'net.expand_ratio (stage 0, block 1)': FloatDistribution(0.5, 1.1, step=0.2),
        'net.expand_ratio (stage 1, block 0)': FloatDistribution(1.1, 2, step=0.3),
        'image_size': IntDistribution(0, 1)}
    assert [element_of(name) for name in Encoding(space).distributions] == [
        'depth', 'out_channel', 'out_channel', 'kernel_size', *['expand_ratio'] * 3, 'image_size']


def test_squares_are_shown_by_their_side() -> None:
    assert Encoding(small_space([(32, 32), (64, 64), (96, 96)])).distributions['image_size'] == IntDistribution(
        32, 96, step=32)


@given(data=st.data())
def test_nearest_is_admissible_and_greedy(data: st.DataObject) -> None:
    choices = data.draw(rules.choices_for('ordered_stage_wise', data.draw(st.integers(1, 4))))
    kwargs = data.draw(rules.order_kwargs('ordered_stage_wise', len(choices)))
    admissible = rules.admissible('ordered_stage_wise', choices, **kwargs)
    assume(admissible)
    low, high = kwargs.get('min_slope', 1), kwargs.get('max_slope', 1000)
    start, end = kwargs.get('start_stage', 0), kwargs.get('end_stage')
    end = len(choices) - 1 if end is None else end
    chain = Chain(choices, [(low, high) if start < stage <= end else None for stage in range(len(choices))])
    for targets in itertools.islice(itertools.product(*choices), 20):
        expected = admissible
        for position, target in enumerate(targets):
            closest = min(abs(values[position] - target) for values in expected)
            # Of two as near as each other, the lesser.
            value = min(values[position] for values in expected if abs(values[position] - target) == closest)
            expected = [values for values in expected if values[position] == value]
        assert nearest(chain, targets) == expected[0]


def test_ascending_blocks_are_sorted() -> None:
    space = SearchSpace({'net': ModuleSpace(dict(
        depth=element([6]), kernel_size=element([1, 3, 5, 7], strategy='ordered_block_wise')), 1, key='net')})
    encoding, rng = Encoding(space), random.Random(0)
    for _ in range(100):
        drawn = [rng.choice([1, 3, 5, 7]) for _ in range(6)]
        subnet = encoding.subnet(dict(zip(encoding.distributions, drawn)))
        assert list(subnet['net']['kernel_size']) == sorted(drawn)


@pytest.mark.parametrize('sized', [False, True])
def test_all_subnets_have_different_parameters(sized: bool) -> None:
    space = small_space([(32, 32), (32, 48)] if sized else ())
    encoding = Encoding(space)
    assert len({tuple(encoding.params(subnet).items()) for subnet in space.traverse()}) == space.size
