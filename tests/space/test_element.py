"""Reading the choices of an element from a config."""
from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from mmbignas import ConfigError
from mmbignas.space import STRATEGIES, Strategy, parse_element, parse_strategy

KEY = 'backbone.x'


def parse(config: object, name: str = 'x', num_stages: int = 2) -> tuple:
    return parse_element(name, config, num_stages, KEY).choices


@pytest.mark.parametrize(('space', 'choices'), [
    (dict(min=[32, 48], max=[64, 48], stride=16), ((32, 48, 64), (48, ))),
    (dict(min=[32, 48], max=[64, 80], stride=[32, 16]), ((32, 64), (48, 64, 80))),
    (dict(min=[0.5, 1], max=[1.5, 1.2], stride=[0.25, 0.1]), ((0.5, 0.75, 1, 1.25, 1.5), (1, 1.1, 1.2))),
    (dict(min=[0.1, 1], max=[0.7, 2], stride=0.1),
     ((0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7), (1, 1.1, 1.2, 1.3, 1.4, 1.5, 1.6, 1.7, 1.8, 1.9, 2))),
    (dict(min=[3, 3], max=[3, 3]), ((3, ), (3, ))),
    (dict(min=[3, 3], max=[3, 7], stride=[0, 2]), ((3, ), (3, 5, 7))),
    (dict(dynamic_range=[[64, 32, 32], (48, )]), ((32, 64), (48, ))),
    (dict(dynamic_range=[[7, 3, 5], [1.5, 0.5]]), ((3, 5, 7), (0.5, 1.5))),
])
def test_space(space: dict, choices: tuple) -> None:
    assert parse(dict(space=space)) == choices
    assert parse(Config(dict(element=dict(space=space))).element) == choices


@given(low=st.integers(1, 50), steps=st.integers(0, 20), stride=st.integers(1, 16))
def test_integer_range_is_pythons(low: int, steps: int, stride: int) -> None:
    high = low + steps * stride
    (choices, ) = parse(dict(space=dict(min=[low], max=[high], stride=stride)), num_stages=1)
    assert choices == tuple(range(low, high + 1, stride))
    assert all(type(value) is int for value in choices)


@given(low=st.integers(1, 40), steps=st.integers(1, 40), stride=st.integers(1, 40), digits=st.integers(1, 4))
def test_decimal_range_holds_the_decimals_a_person_writes(low: int, steps: int, stride: int, digits: int) -> None:
    scale = 10**digits
    expected = [float(f'{low + i * stride}e-{digits}') for i in range(steps + 1)]
    (choices, ) = parse(
        dict(space=dict(min=[low / scale], max=[(low + steps * stride) / scale], stride=stride / scale)), num_stages=1)
    assert list(choices) == expected


def test_fixed_list_per_stage() -> None:
    element = parse_element('x', [1, 0.5], 2, KEY)
    assert element.choices == ((1, ), (0.5, ))
    assert element.strategy is None
    assert not element.searched
    assert not element.per_block


def test_fixed_list_per_block_waits_for_the_depth() -> None:
    element = parse_element('kernel_size', [3, 5, 3], 2, KEY)
    assert element.blocks == (3, 5, 3)
    assert element.per_block
    assert not element.searched


def test_searched_means_a_choice() -> None:
    assert parse_element('x', dict(space=dict(min=[1, 1], max=[1, 2], stride=1)), 2, KEY).searched
    assert not parse_element('x', dict(space=dict(min=[1, 2], max=[1, 2])), 2, KEY).searched


def test_numbers_become_plain_and_equal_ones_equally_written() -> None:
    choices = parse(dict(space=dict(dynamic_range=[[1.0, 0.5], [np.float64(2), np.int64(1)]])))
    assert json.dumps(choices) == '[[0.5, 1], [1, 2]]'
    assert json.dumps(parse([np.int64(32), np.float32(0.5)])) == '[[32], [0.5]]'


@pytest.mark.parametrize(('config', 'expected'), [
    ('block_wise', Strategy('block_wise')),
    (dict(name='net_wise'), Strategy('net_wise')),
    (dict(name='net_wise', kwargs=None), Strategy('net_wise')),
    (dict(name='ordered_stage_wise', kwargs={}), Strategy('ordered_stage_wise', 1, 1000, 0, None)),
    (dict(name='ordered_stage_wise_depth', kwargs=dict(min_slope=0.5, max_slope=2, start_stage=1, end_stage=3)),
     Strategy('ordered_stage_wise_depth', 0.5, 2, 1, 3)),
])
def test_strategy(config: object, expected: Strategy) -> None:
    assert parse_strategy(config, KEY) == expected


def test_strategy_defaults_to_stage_wise() -> None:
    element = parse_element('x', dict(space=dict(min=[1], max=[2], stride=1)), 1, KEY)
    assert element.strategy == Strategy('stage_wise')


def space(**kwargs: object) -> dict:
    return dict(space={**dict(min=[1, 1], max=[3, 3], stride=1), **kwargs})


def strategy(name: object, **kwargs: object) -> dict:
    return dict(space(), sample_strategy=dict(name=name, kwargs=kwargs))


# element, config, the message, which begins with KEY
REFUSED = [
    # lists of numbers
    ('x', 8, ' must be a non-empty list of numbers, got 8'),
    ('x', '88', " must be a non-empty list of numbers, got '88'"),
    ('x', [], ' must be a non-empty list of numbers, got []'),
    ('x', [8, '8'], "[1] must be a number > 0, got '8'"),
    ('x', [8, True], '[1] must be a number > 0, got True'),
    ('x', [8, float('nan')], '[1] must be a number > 0, got nan'),
    ('x', [8, 0], '[1] must be a number > 0, got 0'),
    ('out_channel', [8, 8.0], '[1] must be an integer >= 1, got 8.0'),
    ('depth', [1.0, 1], '[0] must be an integer >= 1, got 1.0'),
    ('group_width', [16, 0.5], '[1] must be an integer >= 1, got 0.5'),
    ('kernel_size', [3, 4], '[1] must be an odd integer >= 1, got 4'),
    ('kernel_size', space(min=[3, 2], max=[3, 2]), '.space.min[1] must be an odd integer >= 1, got 2'),
    ('kernel_size', space(min=[3, 3], max=[5, 5], stride=1), '[1] must be an odd integer >= 1, got 4'),
    ('depth', space(max=[2.0, 2]), '.space.max[0] must be an integer >= 1, got 2.0'),
    ('depth', space(stride=0.5), '[0] must be an integer >= 1, got 1.0'),
    ('x', dict(space=dict(dynamic_range=[[1, -1], [1]])), '.space.dynamic_range[0][1] must be a number > 0, got -1'),
    ('x', dict(space=dict(dynamic_range=[[1], 1])), '.space.dynamic_range[1] must be a non-empty list of numbers, '
     'got 1'),
    # lengths
    ('depth', [1, 2, 3], ' must be a list of one value per stage (2), got [1, 2, 3]'),
    ('x', space(min=[1]), '.space.min must be a list of one value per stage (2), got [1]'),
    ('x', space(max=3), '.space.max must be a list of one value per stage (2), got 3'),
    ('x', space(stride=[1]), '.space.stride must be a list of one number per stage (2), got [1]'),
    ('x', dict(space=dict(dynamic_range=[[1]])), '.space.dynamic_range must be a list of one list per stage (2), got '
     '[[1]]'),
    ('x', dict(space=dict(dynamic_range='ab')), ".space.dynamic_range must be a list of one list per stage (2), got "
     "'ab'"),
    # ranges
    ('x', space(min=[1, 4]), '.space.min must be <= max, 3, in stage 1, got 4'),
    ('x', space(stride=[2, 4]), '.space.stride must be a divisor of 2 in stage 1, from 1 to 3, got 4'),
    ('x', space(stride=None), '.space.stride must be a number > 0 in stage 0, from 1 to 3, got None'),
    ('x', space(stride=0), '.space.stride must be a number > 0 in stage 0, from 1 to 3, got 0'),
    ('x', space(stride='1'), ".space.stride must be a list of one number per stage (2), got '1'"),
    ('x', dict(space=dict(min=[1, 1], max=[3, 3])), '.space.stride must be a number > 0 in stage 0, from 1 to 3, got '
     'None'),
    # what nobody builds, and what would take for ever
    ('out_channel', [10**309, 8], '[0] must be at most 1000000, got 1000000000...'),
    ('depth', space(max=[10**7, 2]), '.space.max[0] must be at most 1000000, got 10000000'),
    ('x', [8, 10**309], '[1] must be a number > 0, got 100000000...'),
    ('x', space(stride=2e-7), '.space.stride must be greater, for at most 1000 choices in stage 0, from 1 to 3, got '
     '2e-07'),
    ('x', space(stride=5e-324), '.space.stride must be greater, for at most 1000 choices...'),
    ('out_channel', space(max=[10**6, 3], stride=1), '.space.stride must be greater, for at most 1000 choices...'),
    ('x', space(stride=float('inf')), '.space.stride must be a number > 0 in stage 0, from 1 to 3, got inf'),
    ('x', space(stride=float('nan')), '.space.stride must be a number > 0 in stage 0, from 1 to 3, got nan'),
    ('x', space(max=[float('inf'), 3]), '.space.max[0] must be a number > 0, got inf'),
    ('x', dict(space=dict(dynamic_range=[list(range(1, 1002)), [1]])), '.space.dynamic_range[0] must be at most 1000 '
     'choices, got 1001'),
    ('x', np.array([1, 2]), ' must be a non-empty list of numbers, got array([1, 2])'),
    # keys
    *(('x', dict(space=own), f'.space must be dict(min=..., max=..., stride=...) or dict(dynamic_range=...), got {own}')
      for own in (dict(min=[1, 1]), {}, [1, 2], dict(dynamic_range=[[1], [1]], min=[1, 1]),
                  dict(max=[2, 2], min=[1, 1], step=1))),
    ('x', dict(min=[1, 1], max=[2, 2]), " must be a dict with keys among space, sample_strategy, got key 'min', 'max'"),
    ('x', {}, " must be a dict with keys among space, sample_strategy, got no key 'space'"),
    # strategies
    *(('x', dict(space(), sample_strategy=own), f'.sample_strategy must be one of {", ".join(STRATEGIES)}, got {own!r}')
      for own in ('random', None, ['net_wise'])),
    ('x', dict(space(), sample_strategy=dict(kwargs={})),
     ".sample_strategy must be a dict with keys among name, kwargs, got no key 'name'"),
    ('x', strategy('net_wise', min_slope=1), ".sample_strategy.kwargs must be an empty dict, got key 'min_slope'"),
    ('x', strategy('ordered_stage_wise', slope=1), '.sample_strategy.kwargs must be a dict with keys among min_slope, '
     "max_slope, start_stage, end_stage, got key 'slope'"),
    ('x', strategy('ordered_stage_wise', max_slope=float('nan')), '.sample_strategy.kwargs.max_slope must be a number, '
     'got nan'),
    ('x', strategy('ordered_stage_wise', min_slope='1'), ".sample_strategy.kwargs.min_slope must be a number, got '1'"),
    ('x', strategy('ordered_stage_wise', start_stage=0.5),
     '.sample_strategy.kwargs.start_stage must be an integer >= 0, got 0.5'),
    ('x', strategy('ordered_stage_wise', end_stage=True),
     '.sample_strategy.kwargs.end_stage must be an integer >= 0, or None, got True'),
    ('x', dict(space(), sample_strategy=dict(name='net_wise', kwargs=[1])), '.sample_strategy.kwargs must be an empty '
     'dict, got [1]'),
]


@pytest.mark.parametrize(('name', 'config', 'message'), REFUSED, ids=[f'{name}-{own}' for name, own, _ in REFUSED])
def test_refused(name: str, config: object, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_element(name, config, 2, KEY)
    found, expected = str(error.value), KEY + message
    assert found.startswith(expected[:-3]) if message.endswith('...') else found == expected
