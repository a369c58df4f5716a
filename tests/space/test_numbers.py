"""Sizes, numbers, walks and uniform draws of spaces, against lists of all subnets and against closed formulas."""
from __future__ import annotations

import itertools
import math
import random
import time
from collections import Counter
from typing import Any

import hypothesis
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chisquare

from mmbignas.errors import ConfigError
from mmbignas.space import ModuleSpace, SearchSpace, Subnet
from tests.space.rules import BLOCK_NAMES, all_settings, combinations, config, spaces

PER_BLOCK = ('x', 'y')  # the elements of `spaces` that a module may have block by block


def module_space(stages: int, elements: dict[str, tuple]) -> ModuleSpace:
    return ModuleSpace(config(elements), stages, block_elements=PER_BLOCK, key='m')


def element(low: list, high: list, stride: Any, strategy: Any = 'stage_wise') -> dict:
    return dict(space=dict(min=low, max=high, stride=stride), sample_strategy=strategy)


def small() -> SearchSpace:
    """Two modules and two image sizes; depths with different numbers of subnets."""
    first = ModuleSpace(dict(depth=element([1, 1], [2, 3], 1), kernel_size=element([3, 3], [5, 7], 2, 'block_wise')), 2)
    second = ModuleSpace(dict(depth=[1], out_channel=element([8], [16], 8)), 1)
    return SearchSpace({'a': first, 'b': second}, [(64, 64), (32, 64)])


# -- against the list of all subnets ---------------------------------------------------------------------------------


def check_numbers(space: ModuleSpace, expected: list[dict[str, tuple]]) -> None:
    assert space.size == len(expected)
    assert [space[number] for number in range(space.size)] == expected
    assert [space.index(settings) for settings in expected] == list(range(space.size))
    assert all(list(space[number]) == list(space.elements) for number in (0, space.size - 1))
    assert space.min() == expected[0]
    assert space.max() == expected[-1]


@given(spaces().filter(lambda space_of: combinations(space_of[1]) < 5000))
def test_numbers_are_the_order_of_the_brute_force_list(space_of: tuple) -> None:
    check_numbers(module_space(*space_of), all_settings(space_of[1]))


@hypothesis.settings(max_examples=40)
@given(spaces(names=BLOCK_NAMES).filter(lambda space_of: combinations(space_of[1]) < 20000))
def test_numbers_with_two_block_wise_elements(space_of: tuple) -> None:
    check_numbers(module_space(*space_of), all_settings(space_of[1]))


@hypothesis.settings(max_examples=30)
@given(spaces(most_stages=2), spaces(most_stages=2), st.integers(0, 3))
def test_numbers_of_a_model(first: tuple, second: tuple, num_sizes: int) -> None:
    sizes = [(32, 48), (64, 64), (48, 96)][:num_sizes]
    assume(combinations(first[1]) * combinations(second[1]) < 3000)
    members = [all_settings(elements) for _, elements in (first, second)]
    space = SearchSpace({'b': module_space(*first), 'a': module_space(*second)}, sizes)
    own_sizes: list = sizes if num_sizes > 1 else [None]
    expected = [Subnet({'b': b, 'a': a}, size) for b, a, size in itertools.product(*members, own_sizes)]
    assert space.size == len(expected)
    assert list(space.traverse()) == expected
    assert [space[number] for number in range(space.size)] == expected
    assert [space.index(subnet) for subnet in expected] == list(range(space.size))
    assert [space.index(subnet.to_dict()) for subnet in expected[:5]] == list(range(len(expected[:5])))
    assert (space.min(), space.max()) == (expected[0], expected[-1])


def test_a_fixed_module_has_one_subnet() -> None:
    space = ModuleSpace(dict(depth=[2, 1], kernel_size=[3, 5, 7], out_channel=[8, 16]), 2)
    assert space.size == 1
    assert space[0] == space.max()
    assert space.index(space.max()) == 0


# -- spaces that no enumeration reaches ------------------------------------------------------------------------------

STAGES, DEPTHS, KERNELS = 30, 10, 3


def huge(depth: Any, **elements: Any) -> ModuleSpace:
    return ModuleSpace(dict(depth=element([1] * STAGES, [DEPTHS] * STAGES, 1, depth), **elements), STAGES)


def kernels(strategy: str) -> dict:
    return element([3] * STAGES, [1 + 2 * KERNELS] * STAGES, 2, strategy)


def ordered(blocks: int) -> int:
    """How many non-decreasing sequences of this many kernels there are."""
    return math.comb(blocks + KERNELS - 1, KERNELS - 1)


def free_depths() -> Counter[int]:
    """Number of blocks -> how many depths have it, from powers of the polynomial x + ... + x^10."""
    result = Counter({0: 1})
    for _ in range(STAGES):
        power: Counter[int] = Counter()
        for blocks, count in result.items():
            for depth in range(1, DEPTHS + 1):
                power[blocks + depth] += count
        result = power
    return result


def ordered_depths() -> Counter[int]:
    """The same of non-decreasing depths, as multisets: a depth after the other, how many stages have it."""
    result = Counter({(0, 0): 1})
    for depth in range(1, DEPTHS + 1):
        grown: Counter[tuple[int, int]] = Counter()
        for (stages, blocks), count in result.items():
            for more in range(STAGES - stages + 1):
                grown[stages + more, blocks + more * depth] += count
        result = grown
    return Counter({blocks: count for (stages, blocks), count in result.items() if stages == STAGES})


HUGE = [
    (huge('stage_wise', kernel_size=kernels('block_wise')), sum(KERNELS**depth for depth in range(1, DEPTHS + 1))**30),
    (huge('stage_wise', kernel_size=kernels('ordered_block_wise')),
     sum(count * ordered(blocks) for blocks, count in free_depths().items())),
    (huge('ordered_stage_wise', kernel_size=kernels('ordered_block_wise'), out_channel=kernels('stage_wise')),
     sum(count * ordered(blocks) for blocks, count in ordered_depths().items()) * KERNELS**STAGES),
    (huge('stage_wise', kernel_size=kernels('ordered_block_wise'), expand_ratio=kernels('ordered_block_wise')),
     sum(count * ordered(blocks)**2 for blocks, count in free_depths().items())),
    (huge('net_wise', kernel_size=kernels('ordered_block_wise'), expand_ratio=kernels('block_wise')),
     sum(ordered(depth * STAGES) * KERNELS**(depth * STAGES) for depth in range(1, DEPTHS + 1))),
    (huge('stage_wise', kernel_size=kernels('net_wise'), out_channel=kernels('ordered_stage_wise')),
     DEPTHS**STAGES * KERNELS * ordered(STAGES)),
]


@pytest.mark.parametrize(('space', 'size'), HUGE, ids=[str(number) for number in range(len(HUGE))])
def test_huge_spaces(space: ModuleSpace, size: int) -> None:
    begin = time.process_time()
    assert space.size == size
    assert time.process_time() - begin < 1
    rng = random.Random(0)
    for number in (0, 1, size - 1, *(rng.randrange(size) for _ in range(4))):
        settings = space[number]
        assert space.canonical(settings) == settings
        assert space.index(settings) == number
    assert (space[0], space[size - 1]) == (space.min(), space.max())


def test_a_walk_through_a_huge_space() -> None:
    space = SearchSpace({'m': HUGE[1][0]})
    assert list(itertools.islice(space.traverse(), 3)) == [space[number] for number in range(3)]
    numbers = [space.index(subnet) for subnet in space.traverse(4)]
    third, rest = divmod(space.size - 1, 3)
    assert numbers[0] == 0
    assert numbers[-1] == space.size - 1
    assert {after - before for before, after in itertools.pairwise(numbers)} <= {third, third + (rest > 0)}


# -- walks and draws -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize('count', [1, 2, 3, 7, 100, 935, 936, 937, 10**6])
def test_evenly_spaced(count: int) -> None:
    space = small()
    assert space.size == (2 + 4) * (3 + 9 + 27) * 2 * 2
    numbers = [space.index(subnet) for subnet in space.traverse(count)]
    assert len(numbers) == min(count, space.size)
    assert numbers[0] == 0
    if count > 1:
        assert numbers[-1] == space.size - 1
        gaps = {after - before for before, after in itertools.pairwise(numbers)}
        assert min(gaps) >= 1
        assert max(gaps) - min(gaps) <= 1


@pytest.mark.parametrize('count', [0, 2.0])
def test_counts_refused(count: Any) -> None:
    with pytest.raises(ConfigError) as error:
        small().traverse(count)
    assert str(error.value) == f'count must be an integer >= 1, got {count}'


@pytest.mark.parametrize('number', [-1, 936, 10**30, True])
def test_numbers_refused(number: Any) -> None:
    with pytest.raises(ConfigError) as error:
        small()[number]
    assert str(error.value) == f'subnet number must be an integer from 0 to 935, got {number}'


def test_what_is_not_in_the_space_has_no_number() -> None:
    settings = small().min().to_dict()
    settings['a']['kernel_size'] = [7, 3]
    with pytest.raises(ConfigError, match=r'a\.kernel_size must be one of \[3, 5\] in block 0, got 7'):
        small().index(settings)


def test_uniform_draws_are_uniform_over_the_subnets() -> None:
    space, rng = small(), random.Random(0)
    counts = Counter(space.sample_uniform(rng) for _ in range(20 * space.size))
    assert chisquare([counts[subnet] for subnet in space.traverse()]).pvalue > 0.001
    by_strategy = Counter(space.sample(rng) for _ in range(20 * space.size))
    assert chisquare([by_strategy[subnet] for subnet in space.traverse()]).pvalue < 1e-9


def test_uniform_draws_come_from_the_generator_alone() -> None:
    first, second = random.Random(3), random.Random(3)
    random.seed(1)
    drawn = [small().sample_uniform(first) for _ in range(20)]
    random.seed(2)
    assert [small().sample_uniform(second) for _ in range(20)] == drawn
    assert len(set(drawn)) > 10
