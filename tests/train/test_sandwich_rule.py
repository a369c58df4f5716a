"""The sandwich rule: what is trained in which iteration."""
import random

import numpy as np
import pytest
import torch

from mmbignas.errors import ConfigError
from mmbignas.space import ModuleSpace, SearchSpace
from mmbignas.train.attentive import AttentiveSampling
from mmbignas.train.sandwich_rule import SandwichRule

STRATEGY = ['max', 'min', 'random', 'random']


def space(depth=3, widths=(8, 32)):
    elements = dict(
        depth=dict(space=dict(min=[1, 1], max=[depth, depth], stride=1)),
        out_channel=dict(space=dict(min=[widths[0]] * 2, max=[widths[1]] * 2, stride=8),
                         sample_strategy='ordered_stage_wise'),
        kernel_size=dict(space=dict(min=[3, 3], max=[5, 5], stride=2), sample_strategy='block_wise'))
    head = dict(depth=[2], out_channel=dict(space=dict(dynamic_range=[[16, 24, 64]])))
    return SearchSpace({'backbone': ModuleSpace(elements, 2), 'head.tower': ModuleSpace(head, 1)})


def tiny_space():
    """Two subnets, so that every other draw is the largest."""
    return SearchSpace({'net': ModuleSpace(dict(depth=dict(space=dict(min=[1], max=[2], stride=1))), 1)})


def test_passes_depend_on_seed_and_iteration_alone():
    numbers = [(seed, iteration) for seed in (0, 1, 2**31, 12345678901) for iteration in range(50)]
    expected = {number: SandwichRule(space(), 4, STRATEGY).passes(*number) for number in numbers}
    rule, order = SandwichRule(space(), 4, list(STRATEGY)), random.Random(5)
    order.shuffle(numbers)
    for number in numbers:
        random.seed(order.random())
        random.random()
        np.random.seed(order.randrange(100))  # noqa: NPY002
        torch.rand(order.randrange(4))
        rule.space.sample(order)
        assert rule.passes(*number) == expected[number]


def test_global_random_states_are_left_alone():
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    for iteration in range(20):
        SandwichRule(space(), 4, STRATEGY).passes(0, iteration)
    after = random.getstate(), torch.get_rng_state(), np.random.get_state()  # noqa: NPY002
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert all(np.array_equal(old, new) for old, new in zip(before[2], after[2]))


def test_random_passes_are_independent_draws_from_the_whole_space():
    rule = SandwichRule(space(), 4, STRATEGY)
    draws = [[own.subnet for own in rule.passes(7, iteration)[2:]] for iteration in range(400)]
    assert sum(first == second for first, second in draws) < 8
    for position in range(2):
        own = [pair[position] for pair in draws]
        assert sum(first == second for first, second in zip(own, own[1:])) < 8
        assert {subnet['backbone']['depth'] for subnet in own} == {(i, j) for i in (1, 2, 3) for j in (1, 2, 3)}
        assert {subnet['head.tower']['out_channel'] for subnet in own} == {(16, ), (24, ), (64, )}
        assert {subnet['backbone']['out_channel'] for subnet in own} == {
            (i, j) for i in (8, 16, 24, 32) for j in (8, 16, 24, 32) if j >= i}
    other_seed = [[own.subnet for own in rule.passes(8, iteration)[2:]] for iteration in range(400)]
    assert sum(first == second for first, second in zip(draws, other_seed)) < 8


def test_one_entry_per_pass():
    own_space = space()
    settings = own_space.sample(random.Random(1)).to_dict()
    named = dict(name='mine', subnet_settings=own_space.sample(random.Random(2)).to_dict())
    strategy = ['max', 'random', 'min', settings, 'middle', 'random', 'max', named, settings]
    passes = SandwichRule(own_space, len(strategy), strategy).passes(0, 3)
    assert [own.name for own in passes] == ['max', 'random0', 'min', 'fixed0', 'middle', 'random1', 'max1', 'mine',
                                            'fixed1']
    assert [(own.iteration, own.index) for own in passes] == [(3, index) for index in range(len(strategy))]
    assert [own.subnet for own in passes[:3:2]] == [own_space.max(), own_space.min()]
    assert passes[3].subnet.to_dict() == passes[8].subnet.to_dict() == settings
    assert passes[4].subnet == own_space.middle()
    assert passes[7].subnet.to_dict() == named['subnet_settings']
    assert [own.is_max for own in passes] == [own.subnet == own_space.max() for own in passes]


def test_entries_with_candidates_among_others():
    own_space = space()
    strategy = ['best_up', 'random', dict(name='mine', subnet_settings=own_space.min().to_dict()), 'worst_up',
                'best_up', 'random', 'max']
    rule = SandwichRule(own_space, len(strategy), strategy, attentive=AttentiveSampling(lambda *_: 1, 4))
    passes = rule.passes(0, 3)
    assert [own.name for own in passes] == ['best_up0', 'random0', 'mine', 'worst_up0', 'best_up1', 'random1', 'max']
    assert [len(own.candidates) for own in passes] == [4, 0, 0, 4, 4, 0, 0]
    assert [own.highest for own in passes] == [index == 3 for index in range(7)]
    assert passes[2].subnet == own_space.min()
    assert passes[6].is_max
    plain = SandwichRule(own_space, len(strategy), ['random', *strategy[1:3], 'random', 'random', *strategy[5:]])
    assert [own.subnet for own in passes] == [own.subnet for own in plain.passes(0, 3)]


def test_with_one_subnet_the_list_is_walked():
    own_space = space()
    rule = SandwichRule(own_space, 1, ['max', 'random', 'min', 'random'])
    passes = [rule.passes(0, iteration) for iteration in range(40)]
    assert all(len(own) == 1 and own[0].index == 0 for own in passes)
    assert [own[0].name for own in passes] == ['max', 'random0', 'min', 'random1'] * 10
    assert {own[0].subnet for own in passes[::4]} == {own_space.max()}
    assert {own[0].subnet for own in passes[2::4]} == {own_space.min()}
    assert len({own[0].subnet for own in passes[1::2]}) > 15


def test_a_draw_that_is_the_largest_is_known_as_such():
    rule = SandwichRule(tiny_space(), 2, ['random', dict(name='big', subnet_settings=dict(net=dict(depth=[2])))])
    passes = [rule.passes(0, iteration) for iteration in range(40)]
    assert all(own[1].is_max for own in passes)
    found = [own[0].is_max for own in passes]
    assert found == [own[0].subnet['net']['depth'] == (2, ) for own in passes]
    assert 5 < sum(found) < 35


@pytest.mark.parametrize(('number', 'strategy', 'leads'), [
    (2, ['max', 'min'], True),
    (2, [dict(net=dict(depth=[2])), 'random'], True),
    (3, ['min', 'max', 'random'], False),
    (1, ['max'], False),
    (1, ['max', 'min'], False),
    (2, ['random', 'max'], False),
    (2, ['best_up', 'max'], False),
    (2, ['max', 'best_up'], True),
])
def test_max_leads(number, strategy, leads):
    assert SandwichRule(tiny_space(), number, strategy, attentive=AttentiveSampling(lambda *_: 1)).max_leads is leads


@pytest.mark.parametrize(('number', 'strategy', 'parts'), [
    (0, STRATEGY, ['train_cfg.sample_subnet_num must be an integer >= 1, got 0']),
    (3, STRATEGY, ['train_cfg.sample_subnet_num must be 4, the number of entries', 'or 1', 'got 3']),
    (4, ['max', 'min'], ['train_cfg.sample_subnet_num must be 2', 'got 4']),
    (1, [], ['train_cfg.sample_strategy must be a non-empty list of max, min, middle, random, best_up, worst_up']),
    (1, 'max', ['train_cfg.sample_strategy must be a non-empty list', "'max'"]),
    (1, dict(net=dict(depth=[1])), ['train_cfg.sample_strategy must be a non-empty list']),
    (2, ['max', 'largest'], ['train_cfg.sample_strategy[1] must be max, min, middle, random, best_up, worst_up, a '
                             'number from 0 to', 'or settings', "got 'largest'"]),
    (2, ['max', None], ['train_cfg.sample_strategy[1] must be', 'got None']),
    (2, ['max', 'best_up'], ['attentive must be an AttentiveSampling with best_up or worst_up, got None']),
    (2, ['max', dict(net=dict(depth=[3]))], ['train_cfg.sample_strategy[1]', 'net.depth', '3', '[1, 2]']),
    (2, ['max', dict(net=dict(depth=[1, 1]))],
     ['train_cfg.sample_strategy[1]', 'list of one value per stage', '(1, 1)']),
    (2, ['max', dict(neck=dict(depth=[1]))], ['train_cfg.sample_strategy[1]', 'neck', 'net']),
    (2, ['max', dict(name='a', subnet_settings=dict(net=dict(width=[1])))],
     ['train_cfg.sample_strategy[1]', 'width', 'depth']),
])
def test_errors_are_one_line_with_key_value_and_what_is_allowed(number, strategy, parts):
    with pytest.raises(ConfigError) as error:
        SandwichRule(tiny_space(), number, strategy)
    message = str(error.value)
    assert '\n' not in message
    for part in parts:
        assert part in message
