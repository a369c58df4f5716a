"""Drawing subnets, against plain loops over spaces that are small enough to list."""
from __future__ import annotations

import random
import time
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbignas import ConfigError
from mmbignas.cost import Cost
from mmbignas.cost.sampling import MAX_DRAWS_PER_SUBNET, MAX_MISSES, SAMPLE_MODES, SubnetSampling
from mmbignas.space import ModuleSpace, SearchSpace, Subnet
from tests.cost.fake_costs import SIZES, FakeCostModel, element, small_space

SPACE = small_space()
SIZED = small_space(SIZES)
# 2**101 subnets.
HUGE = SearchSpace({'backbone': ModuleSpace(
    dict(depth=element([100]), out_channel=element([2, 3]), kernel_size=element([1, 3], strategy='block_wise')), 1,
    key='backbone')})
# Shallow in half of the draws, but in 1 of 250 subnets.
DEEP = SearchSpace({'backbone': ModuleSpace(
    dict(depth=element([1, 9], [1]), out_channel=element(range(1, 60), range(1, 60)),
         kernel_size=element([1, 3], [1, 3, 5], strategy='block_wise')), 2, key='backbone')})


def draw(space: SearchSpace, count: int, mode: str = 'random', flops_range: Any = None, seed: int = 0) -> list:
    return list(SubnetSampling(count, mode, flops_range).draw(FakeCostModel(space), random.Random(seed)))


def listed(space: SearchSpace) -> list[int]:
    """The MACs of all subnets, by number."""
    return [FakeCostModel(space)(space[number]).macs for number in range(space.size)]


def first_distinct(space: SearchSpace, count: int, mode: str, low: int, high: int, seed: int) -> list[int]:
    """Numbers of the first distinct subnets in the range, by a loop that looks at nothing else."""
    rng, numbers, cost_model = random.Random(seed), dict[int, None](), FakeCostModel(space)
    while len(numbers) < count:
        subnet = space.sample(rng) if mode == 'random' else space.sample_uniform(rng)
        if low <= cost_model(subnet).macs <= high:
            numbers[space.index(subnet)] = None
    return list(numbers)


@pytest.mark.parametrize('space', [SPACE, SIZED])
@pytest.mark.parametrize('mode', SAMPLE_MODES)
@pytest.mark.parametrize('extra', [0, 1, 10**9])
def test_a_small_space_is_walked(space: SearchSpace, mode: str, extra: int) -> None:
    drawn = draw(space, space.size + extra, mode)
    assert [own.number for own in drawn] == list(range(space.size))
    assert [own.subnet for own in drawn] == [space[number] for number in range(space.size)]
    assert [own.cost for own in drawn] == [FakeCostModel(space)(own.subnet) for own in drawn]


@given(data=st.data(), mode=st.sampled_from(SAMPLE_MODES), sized=st.booleans())
def test_any_range_of_a_small_space(data: st.DataObject, mode: str, sized: bool) -> None:
    space = SIZED if sized else SPACE
    macs = listed(space)
    end = st.none() | st.integers(min(macs) - 5, max(macs) + 5)
    low, high = data.draw(end), data.draw(end)
    bottom, top = min(macs) - 9 if low is None else low, max(macs) + 9 if high is None else high
    expected = [number for number, own in enumerate(macs) if bottom <= own <= top]
    if expected:
        assert [own.number for own in draw(space, space.size, mode, [low, high])] == expected
        return
    with pytest.raises(ConfigError) as error:
        draw(space, space.size, mode, [low, high])
    message = str(error.value)
    assert message.startswith('flops_range')
    if bottom > top:
        assert 'must be [low, high] with low <= high' in message
    elif bottom > max(macs) or top < min(macs):
        assert f'must be a range that overlaps [{min(macs)}, {max(macs)}]' in message
    else:
        below, above = max(own for own in macs if own < bottom), min(own for own in macs if own > top)
        assert f'none of the {space.size} subnets drawn ({mode}); the nearest have {below} and {above} MACs' in message


@pytest.mark.parametrize('mode', ['random', 'uniform'])
@pytest.mark.parametrize('seed', range(5))
def test_draws_are_the_first_distinct_ones(mode: str, seed: int) -> None:
    macs = sorted(listed(SIZED))
    for low, high in ((macs[0], macs[-1]), (macs[20], macs[90])):
        drawn = draw(SIZED, 30, mode, [low, high], seed)
        assert [own.number for own in drawn] == first_distinct(SIZED, 30, mode, low, high, seed)
        assert drawn == draw(SIZED, 30, mode, [low, high], seed)
        assert drawn != draw(SIZED, 30, mode, [low, high], seed + 100)
        assert [own.subnet for own in drawn] == [SIZED[own.number] for own in drawn]


def test_the_modes_differ() -> None:
    shallow = {mode: sum(own.subnet['backbone']['depth'] == (1, 1) for own in draw(DEEP, 500, mode))
               for mode in ('random', 'uniform')}
    assert 200 < shallow['random'] < 300  # half: the depth is drawn first
    assert shallow['uniform'] < 20


@pytest.mark.parametrize('count', [1, 2, 7, 71])
def test_a_traverse_is_evenly_spaced(count: int) -> None:
    numbers = [own.number for own in draw(SPACE, count, 'traverse')]
    assert len(numbers) == count
    assert numbers[0] == 0
    if count > 1:
        assert numbers[-1] == SPACE.size - 1
        gaps = {second - first for first, second in zip(numbers, numbers[1:])}
        assert max(gaps) - min(gaps) <= 1


def test_a_traverse_keeps_those_in_the_range() -> None:
    macs = listed(SPACE)
    low, high = sorted(macs)[20], sorted(macs)[50]
    everywhere = [own.number for own in draw(SPACE, 25, 'traverse')]
    assert [own.number for own in draw(SPACE, 25, 'traverse', [low, high])] == [
        number for number in everywhere if low <= macs[number] <= high]


def test_it_is_lazy_even_in_a_huge_space() -> None:
    cost_model = FakeCostModel(HUGE)
    draws = SubnetSampling(10**9).draw(cost_model, random.Random(0))
    before = cost_model.calls
    assert (draws.drawn, draws.kept) == (0, 0)
    assert draws.total == 10**9
    first = [next(draws) for _ in range(5)]
    assert (cost_model.calls - before, draws.drawn, draws.kept) == (5, 5, 5)
    assert len({own.number for own in first}) == 5
    assert draws.smallest == cost_model(HUGE.min())
    assert draws.largest == cost_model(HUGE.max())


@pytest.mark.parametrize('mode', ['random', 'uniform'])
def test_a_range_in_which_nothing_is_found_ends(mode: str) -> None:
    cost_model = FakeCostModel(HUGE)
    smallest, largest = (cost_model(own).macs for own in (HUGE.min(), HUGE.max()))
    begin = time.time()
    draws = SubnetSampling(1000, mode, [smallest, smallest]).draw(cost_model, random.Random(0))
    with pytest.raises(ConfigError, match=f'holds none of the {MAX_MISSES} subnets drawn') as error:
        list(draws)
    assert (draws.drawn, draws.kept) == (MAX_MISSES, 0)
    # The smallest subnet is the only one there, so there is nothing below.
    nearest = str(error.value).partition('the nearest have ')[2].partition(' MACs')[0]
    assert smallest < int(nearest) < largest
    assert time.time() - begin < 60


def test_the_last_few_of_a_range_are_not_waited_for() -> None:
    low = sorted(set(listed(SIZED)))[-4]
    inside = [number for number, own in enumerate(listed(SIZED)) if own >= low]
    draws = SubnetSampling(140, 'uniform', [low, None]).draw(FakeCostModel(SIZED), random.Random(0))
    assert sorted(own.number for own in draws) == inside
    assert draws.kept == len(inside) < 140
    assert MAX_MISSES < draws.drawn < 140 * MAX_DRAWS_PER_SUBNET


def test_draws_are_bounded_by_their_number() -> None:
    cost_model, rng = FakeCostModel(DEEP), random.Random(1)
    macs = sorted(cost_model(DEEP.sample(rng)).macs for _ in range(2000))
    draws = SubnetSampling(150, 'random', [None, macs[6]]).draw(cost_model, random.Random(0))
    assert 0 < len(list(draws)) == draws.kept < 150
    assert draws.drawn == 150 * MAX_DRAWS_PER_SUBNET > MAX_MISSES


@pytest.mark.parametrize(('arguments', 'message'), [
    ((0,), 'subnet_count must be an integer >= 1, got 0'),
    ((5, 'rand'), "subnet_sample_mode must be one of random, uniform, traverse, got 'rand'"),
    ((5, 'random', '1G'), 'flops_range')])
def test_refused(arguments: tuple, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        SubnetSampling(*arguments)
    assert str(error.value).startswith(message)


@pytest.mark.parametrize(('flops_range', 'inside'), [(['1T', None], False), ([None, 1], False), ([None, '1T'], True)])
def test_a_range_out_of_reach_is_refused_before_drawing(flops_range: list, inside: bool) -> None:
    cost_model = FakeCostModel(HUGE)
    sampling = SubnetSampling(10, 'random', flops_range)
    if inside:
        assert len(list(sampling.draw(cost_model, random.Random(0)))) == 10
        return
    with pytest.raises(ConfigError, match='flops_range must be a range that overlaps') as error:
        sampling.draw(cost_model, random.Random(0))
    assert f'[{cost_model(HUGE.min()).macs}, {cost_model(HUGE.max()).macs}]' in str(error.value)
    assert cost_model.calls < 500  # the ends of the space and their neighbours


def test_the_range_within_reach_where_more_is_not_dearer() -> None:
    space = SearchSpace({'m': ModuleSpace(dict(
        depth=[1, 1, 1], groups=element([1, 2, 4], [1, 2, 4], [1, 2]), out_channel=element([8, 16], [8, 24], [8])), 3,
        key='m')})

    class Grouped(FakeCostModel):
        def __call__(self, subnet: Subnet) -> Cost:
            macs = sum(48 * width // groups for width, groups in zip(subnet['m']['out_channel'], subnet['m']['groups']))
            return Cost(macs, macs, macs, {})

    cost_model = Grouped(space)
    macs = [cost_model(subnet).macs for subnet in space.traverse()]
    draws = SubnetSampling(5, 'random', [max(macs), max(macs)]).draw(cost_model, random.Random(0))
    assert (draws.smallest.macs, draws.largest.macs) == (min(macs), max(macs))
    assert max(macs) > cost_model(space.max()).macs
    assert {own.cost.macs for own in draws} == {max(macs)}
    with pytest.raises(ConfigError, match='flops_range must be a range that overlaps'):
        SubnetSampling(5, 'random', [max(macs) + 1, None]).draw(cost_model, random.Random(0))
