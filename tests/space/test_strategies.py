"""Each strategy against its definition, by brute force."""
from __future__ import annotations

import itertools
import math
import random
from collections import Counter
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from scipy.stats import chisquare

from mmbignas import ConfigError
from mmbignas.space import STRATEGIES, Strategy
from mmbignas.space.strategies import Variants
from tests.space.rules import (
    BLOCK_NAMES,
    DEPTH_NAMES,
    STAGE_NAMES,
    admissible,
    choices_for,
    extremes_allowed,
    order_kwargs,
)


def test_the_references_eight() -> None:
    assert set(STRATEGIES) == {*DEPTH_NAMES, *STAGE_NAMES, *BLOCK_NAMES}
    assert len(STRATEGIES) == 8


def check_set(variants: Variants, expected: list[tuple], candidates: list[tuple]) -> None:
    """A set of variants must be exactly ``expected``, in this order."""
    assert expected
    assert variants.size == len(expected)
    assert [variants[index] for index in range(variants.size)] == expected
    assert [variants.index(values) for values in expected] == list(range(variants.size))
    members = set(expected)
    assert variants.middle() in members
    for values in candidates:
        assert (variants.explain(values) is None) == (values in members), values


def with_an_outsider(choices: list[tuple[int, ...]]) -> list[tuple]:
    """All combinations, among them some with a value that no stage has."""
    return list(itertools.product(*[(*stage, 99) for stage in choices]))


@pytest.mark.parametrize('name', DEPTH_NAMES)
@given(data=st.data())
def test_depth(name: str, data: st.DataObject) -> None:
    stages = data.draw(st.integers(1, 4))
    choices = data.draw(choices_for(name, stages))
    kwargs = data.draw(order_kwargs(name, stages))
    assume(extremes_allowed(name, choices, kwargs))
    strategy = Strategy(name, **kwargs)
    strategy.check('depth', choices, 'k')
    check_set(strategy.variants(choices), admissible(name, choices, **kwargs), with_an_outsider(choices))


@pytest.mark.parametrize('name', [*STAGE_NAMES, *BLOCK_NAMES])
@given(data=st.data())
def test_another_element(name: str, data: st.DataObject) -> None:
    stages = data.draw(st.integers(1, 3))
    choices = data.draw(choices_for(name, stages))
    kwargs = data.draw(order_kwargs(name, stages))
    assume(extremes_allowed(name, choices, kwargs))
    depth_choices = data.draw(choices_for('stage_wise', stages, largest=3))
    depth = [data.draw(st.sampled_from(stage)) for stage in depth_choices]
    strategy = Strategy(name, **kwargs)
    strategy.check('x', choices, 'k')
    columns = [stage for stage, count in zip(choices, depth) for _ in range(count)] if name in BLOCK_NAMES else choices
    assume(math.prod(len(column) + 1 for column in columns) < 5000)
    check_set(strategy.variants(choices, depth, depth_choices),
              admissible(name, choices, depth, depth_choices, **kwargs), with_an_outsider(columns))


def test_stage_wise_depth_links_where_choices_are_equally_many() -> None:
    variants = Strategy('stage_wise_depth').variants(((8, 16), (8, 16, 24), (8, ), (8, 16)), (2, 5, 1, 4),
                                                     ((1, 2), (4, 5), (1, 2), (4, 6)))
    assert [variants[index] for index in range(variants.size)] == [(16, 8, 8, 8), (16, 16, 8, 8), (16, 24, 8, 8)]


def test_net_wise_index_keeps_single_choices() -> None:
    variants = Strategy('net_wise_index').variants(((8, 16), (3, ), (1, 5)))
    assert [variants[index] for index in range(variants.size)] == [(8, 3, 1), (16, 3, 5)]


def test_slopes_bind_only_between_start_and_end() -> None:
    choices = ((4, ), (1, 4, 16), (1, 4, 16), (1, 4))
    variants = Strategy('ordered_stage_wise', 1, 4, start_stage=1, end_stage=2).variants(choices)
    found = {variants[index] for index in range(variants.size)}
    assert {values[1:3] for values in found} == {(1, 1), (1, 4), (4, 4), (4, 16), (16, 16)}
    assert {values[3] for values in found} == {1, 4}


@pytest.mark.parametrize('name', ['ordered_stage_wise', 'ordered_block_wise'])
def test_sizes_that_no_enumeration_reaches(name: str) -> None:
    stages, count = 30, 20
    choices = [tuple(range(1, count + 1))] * stages
    variants = Strategy(name).variants(choices, [1] * stages)
    assert variants.size == math.comb(stages + count - 1, stages)  # non-decreasing sequences
    assert variants[0] == (1, ) * stages
    assert variants[1] == (1, ) * (stages - 1) + (2, )
    assert variants[variants.size - 1] == (count, ) * stages
    number = variants.size * 2 // 3
    assert variants.index(variants[number]) == number
    draw = variants.sample(random.Random(0))
    assert list(draw) == sorted(draw)


# name, choices, keywords; not so many values that a draw of 100 for each takes long
DRAWS: list[tuple[str, Any, dict[str, Any]]] = [
    ('net_wise', [(1, 2, 3)] * 2, {}),
    ('net_wise_index', [(1, 2, 3), (7, ), (4, 5, 6)], {}),
    ('stage_wise', [(1, 2, 3), (7, ), (4, 5)], {}),
    ('ordered_stage_wise', [(1, 2, 8), (2, 4, 8), (2, 4, 8)], {}),
    ('ordered_stage_wise', [(1, 2, 8), (2, 4, 8), (2, 4, 8)], dict(max_slope=4, min_slope=0.5)),
    ('stage_wise_depth', [(1, 2), (3, 4, 5)], {}),
    ('block_wise', [(1, 2), (3, 4, 5)], {}),
    ('ordered_block_wise', [(1, 2), (2, 4)], {}),
]


@pytest.mark.parametrize(('name', 'choices', 'kwargs'), DRAWS)
def test_draws_are_uniform(name: str, choices: Any, kwargs: dict[str, Any]) -> None:
    depth, depth_choices = (2, 1), ((1, 2), (1, 2))
    variants = Strategy(name, **kwargs).variants(choices, depth, depth_choices)
    expected = admissible(name, choices, depth, depth_choices, **kwargs)
    rng = random.Random(1)
    counts = Counter(variants.sample(rng) for _ in range(100 * len(expected)))
    assert set(counts) == set(expected)
    assert chisquare([counts[values] for values in expected]).pvalue > 0.001


@pytest.mark.parametrize(('choices', 'middle'), [
    (((1, 2, 3), (4, 5), (6, )), (2, 5, 6)),
    (((1, 2, 3, 4), (1, 2, 3, 4)), (3, 3)),
])
def test_middle(choices: Any, middle: tuple) -> None:
    assert Strategy('stage_wise').variants(choices).middle() == middle
    assert Strategy('ordered_stage_wise').variants(choices).middle() == middle


def test_middle_of_ordered_values_obeys_the_order() -> None:
    # stage 0 asks for 8; stage 1 would like 2, and takes the value next to it that may follow 8
    assert Strategy('ordered_stage_wise').variants(((1, 8, 9), (1, 2, 16))).middle() == (8, 16)


def test_middle_of_net_wise() -> None:
    assert Strategy('net_wise').variants([(8, 16, 24)] * 2).middle() == (16, 16)
    assert Strategy('net_wise_index').variants([(8, 16, 24), (1, )]).middle() == (16, 1)


@given(data=st.data())
def test_check_wants_the_largest_and_the_smallest_subnet_to_obey_the_order(data: st.DataObject) -> None:
    name = data.draw(st.sampled_from(['ordered_stage_wise', 'ordered_stage_wise_depth', 'ordered_block_wise']))
    stages = data.draw(st.integers(1, 4))
    choices = data.draw(choices_for(name, stages))
    kwargs = data.draw(order_kwargs(name, stages))
    element = 'depth' if name == 'ordered_stage_wise_depth' else 'x'
    if extremes_allowed(name, choices, kwargs):
        Strategy(name, **kwargs).check(element, choices, 'k')
    else:
        with pytest.raises(ConfigError, match=r'k: .* cannot draw the (largest|smallest) subnet .* must be '):
            Strategy(name, **kwargs).check(element, choices, 'k')


# strategy, element, choices, what the message must say
REFUSED = [
    (Strategy('net_wise'), 'x', ((1, 2), (1, 3)), ["space must be the same", "'net_wise'", '[[1, 2], [1, 3]]']),
    (Strategy('net_wise_index'), 'x', ((1, 2), (1, 2, 3), (1, )), ["'net_wise_index'", '[[1, 2], [1, 2, 3], [1]]']),
    (Strategy('ordered_stage_wise_depth'), 'x', ((1, 2), ), ['depth only', "'ordered_stage_wise'"]),
    (Strategy('ordered_stage_wise'), 'x', ((9, ), (2, 3)), ['largest subnet [9, 3]', 'stage 1', '1000 times', 'got 3']),
    (Strategy('ordered_stage_wise'), 'x', ((2, 3), (1, 3)), ['smallest subnet [2, 1]', 'in stage 1', 'got 1']),
    (Strategy('ordered_stage_wise', 1, 2), 'x', ((1, 2), (1, 8)), ['largest subnet [2, 8]', '2 times', 'got 8']),
    (Strategy('ordered_block_wise'), 'x', ((5, ), (2, 3)), ['largest subnet [5, 3]']),
    (Strategy('ordered_stage_wise', start_stage=-1), 'x', ((1, ), (2, )), ['start_stage=-1', '<= 1']),
    (Strategy('ordered_stage_wise', end_stage=2), 'x', ((1, ), (2, )), ['end_stage=2', '<= 1']),
    (Strategy('ordered_stage_wise', start_stage=1, end_stage=0), 'x', ((1, ), (2, )), ['start_stage=1', 'end_stage=0']),
]


@pytest.mark.parametrize(('strategy', 'element', 'choices', 'parts'), REFUSED)
def test_refused(strategy: Strategy, element: str, choices: Any, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        strategy.check(element, choices, 'neck.x')
    message = str(error.value)
    assert message.startswith('neck.x')
    assert '\n' not in message
    for part in parts:
        assert part in message


def test_explain_names_position_and_allowed_values() -> None:
    chain = Strategy('ordered_stage_wise').variants(((1, 2), (1, 4)))
    assert chain.explain((1, 3)) == 'must be one of [1, 4] in stage 1, got 3'
    assert chain.explain((2, 1), 'block') == (
        'must be 1 to 1000 times the value before it, 2, in block 1 by its ordering rule, got 1')
    one_index = Strategy('net_wise').variants([(1, 2)] * 2)
    assert one_index.explain((1, 2)) == 'must be one of [[1, 1], [2, 2]], got [1, 2]'
