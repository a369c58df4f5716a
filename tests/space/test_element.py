"""Reading the choices of an element from a config."""
from __future__ import annotations

import json

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mmengine.config import Config

from mmbignas import ConfigError
from mmbignas.space import Strategy, parse_element, parse_strategy

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


# element, config, what the message must say
REFUSED = [
    # not a list of numbers
    ('x', 8, ['backbone.x', '8', 'list of numbers']),
    ('x', None, ['backbone.x', 'None', 'list of numbers']),
    ('x', '88', ['backbone.x', "'88'", 'list of numbers']),
    ('x', [], ['backbone.x', '[]', 'non-empty']),
    ('x', [8, '8'], ["'8'", 'numbers']),
    ('x', [8, None], ['None', 'numbers']),
    ('x', [8, True], ['True', 'numbers']),
    ('x', [8, float('nan')], ['nan', 'numbers']),
    ('x', [8, float('inf')], ['inf', 'numbers']),
    # values that no layer can have
    ('x', [8, 0], ['0', 'greater than 0']),
    ('x', [8, -1.5], ['-1.5', 'greater than 0']),
    ('out_channel', [8, 8.0], ['8.0', 'out_channel', 'integers']),
    ('depth', [1, 1.0], ['1.0', 'depth', 'integers']),
    ('group_width', [16, 0.5], ['0.5', 'group_width', 'integers']),
    ('kernel_size', [3, 4], ['4', 'odd']),
    ('kernel_size', space(min=[3, 2], max=[3, 2]), ['backbone.x.space.min', '2', 'odd']),
    ('kernel_size', space(min=[3, 3], max=[5, 5], stride=1), ['4', 'odd']),
    ('depth', space(max=[2.0, 2]), ['backbone.x.space.max', '2.0', 'integers']),
    ('depth', space(stride=0.5), ['1.0', 'integers']),
    ('x', space(min=[0, 1]), ['backbone.x.space.min', '0', 'greater than 0']),
    ('x', dict(space=dict(dynamic_range=[[1, -1], [1]])), ['backbone.x.space.dynamic_range[0]', '-1']),
    ('x', space(max=[float('inf'), 3]), ['backbone.x.space.max', 'inf']),
    # lengths
    ('depth', [1, 2, 3], ['3 values', '2 stages', '[1, 2, 3]']),
    ('x', space(min=[1]), ['backbone.x.space.min', '1 values', '2 stages', '[1]']),
    ('x', space(max=[1, 2, 3]), ['backbone.x.space.max', '3 values', '2 stages']),
    ('x', space(stride=[1]), ['backbone.x.space.stride', '1 values', '2 stages']),
    ('x', dict(space=dict(dynamic_range=[[1]])), ['backbone.x.space.dynamic_range', '1 values', '2 stages']),
    # ranges
    ('x', space(min=[1, 4]), ['backbone.x.space', 'min 4', 'max 3', 'stage 1']),
    ('x', space(stride=[2, 4]), ['backbone.x.space.stride', '4', 'min 1', 'max 3', 'stage 1']),
    ('x', space(stride=0.3), ['0.3', 'min 1', 'max 3', 'stage 0']),
    ('x', space(stride=None), ['stride', 'stage 0', '1', '3', 'None']),
    ('x', space(stride=0), ['stride greater than 0', 'got 0']),
    ('x', space(stride=-1), ['stride greater than 0', 'got -1']),
    ('x', space(stride=True), ['stride greater than 0', 'got True']),
    ('x', space(stride=float('nan')), ['stride greater than 0', 'got nan']),
    ('x', space(stride='1'), ['backbone.x.space.stride', "'1'"]),
    ('x', dict(space=dict(min=[1, 1], max=[3, 3])), ['stride', 'stage 0']),
    ('x', dict(space=dict(min=[1, 1])), ['backbone.x.space', 'min and max', 'dynamic_range']),
    ('x', dict(space={}), ['backbone.x.space', 'min and max', 'dynamic_range']),
    ('x', space(dynamic_range=[[1], [1]]), ['backbone.x.space', 'dynamic_range or min/max/stride']),
    ('x', dict(space=dict(dynamic_range=[[1], []])), ['dynamic_range[1]', '[]']),
    ('x', dict(space=dict(dynamic_range=[[1], 1])), ['dynamic_range[1]', '1']),
    ('x', dict(space=dict(dynamic_range='ab')), ['dynamic_range', "'ab'"]),
    ('x', dict(space=dict(dynamic_range={0: [1]})), ['dynamic_range', '{0: [1]}']),
    # keys
    ('x', dict(space=[1, 2]), ['backbone.x.space', '[1, 2]', 'min']),
    ('x', space(step=1), ['backbone.x.space', 'step', 'stride']),
    ('x', dict(min=[1, 1], max=[2, 2]), ['backbone.x', 'space=...']),
    ('x', dict(space(), strategy='net_wise'), ['backbone.x', 'sample_strategy', "'strategy'"]),
    # strategies
    ('x', dict(space(), sample_strategy='random'), ['backbone.x.sample_strategy', "'random'", 'ordered_block_wise']),
    ('x', dict(space(), sample_strategy=None), ['backbone.x.sample_strategy', 'None', 'stage_wise']),
    ('x', dict(space(), sample_strategy=dict(kwargs={})), ['backbone.x.sample_strategy', 'name=...']),
    ('x', dict(space(), sample_strategy=dict(name='net_wise', args=1)), ['backbone.x.sample_strategy', 'args']),
    ('x', strategy(['net_wise']), ['backbone.x.sample_strategy', "['net_wise']", 'stage_wise']),
    ('x', strategy('net_wise', min_slope=1), ['backbone.x.sample_strategy.kwargs', 'min_slope', 'allowed: none']),
    ('x', strategy('ordered_block_wise', min_slope=1), ['min_slope', 'allowed: none']),
    ('x', strategy('ordered_stage_wise', slope=1), ['slope', 'min_slope', 'end_stage']),
    ('x', strategy('ordered_stage_wise', min_slope='1'), ['kwargs.min_slope', "'1'", 'number']),
    ('x', strategy('ordered_stage_wise', max_slope=None), ['kwargs.max_slope', 'None', 'number']),
    ('x', strategy('ordered_stage_wise', start_stage=0.5), ['kwargs.start_stage', '0.5', 'stage index']),
    ('x', strategy('ordered_stage_wise', end_stage=True), ['kwargs.end_stage', 'True', 'stage index']),
    ('x', dict(space(), sample_strategy=dict(name='net_wise', kwargs=[1])), ['kwargs', '[1]', 'dict']),
]


@pytest.mark.parametrize(('name', 'config', 'parts'), REFUSED, ids=[f'{name}-{config}' for name, config, _ in REFUSED])
def test_refused(name: str, config: object, parts: list[str]) -> None:
    with pytest.raises(ConfigError) as error:
        parse_element(name, config, 2, KEY)
    message = str(error.value)
    assert message.startswith(KEY)
    assert '\n' not in message
    for part in parts:
        assert part in message
