"""Module spaces, model spaces and the canonical form of a subnet."""
from __future__ import annotations

import ast
import json
import random
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import hypothesis
import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

import mmbignas.space
from mmbignas import ConfigError
from mmbignas.space import ModuleSpace, SearchSpace, Subnet
from tests.space.rules import BLOCK_NAMES, all_settings, config, spaces

PER_BLOCK = ('x', 'y')  # the elements of `spaces` that a module may have block by block


def module_space(stages: int, elements: dict[str, tuple]) -> ModuleSpace:
    return ModuleSpace(config(elements), stages, block_elements=PER_BLOCK, key='m')


def element(low: list, high: list, stride: Any, strategy: Any = 'stage_wise') -> dict:
    return dict(space=dict(min=low, max=high, stride=stride), sample_strategy=strategy)


# The published R18 backbone and head of the reference.
BACKBONE = dict(
    depth=element([1, 1, 2, 2, 4], [1, 3, 4, 4, 6], 1, 'stage_wise_depth'),
    out_channel=element([32, 48, 96, 192, 384], [64, 80, 160, 320, 640], [16, 16, 32, 64, 128]),
    kernel_size=[3, 3, 3, 3, 3],
    expand_ratio=[0.5, 1, 1, 1, 1])
TOWER = dict(depth=[4], out_channel=element([64], [128], 32), kernel_size=[3])
MAX = dict(depth=(1, 3, 4, 4, 6), out_channel=(64, 80, 160, 320, 640), kernel_size=(3, ) * 5,
           expand_ratio=(0.5, 1, 1, 1, 1))
MIN = dict(depth=(1, 1, 2, 2, 4), out_channel=(32, 48, 96, 192, 384), kernel_size=(3, ) * 5,
           expand_ratio=(0.5, 1, 1, 1, 1))


def r18() -> SearchSpace:
    return SearchSpace({
        'backbone': ModuleSpace(BACKBONE, 5, key='BigResNet'),
        'bbox_head.cls_tower': ModuleSpace(TOWER, 1, ('out_channel', 'kernel_size'), key='BigRetinaHead.cls_tower')})


def block_kernels() -> ModuleSpace:
    """Two stages of 1 or 2 blocks; the kernel is drawn for each block, the width for each stage."""
    return ModuleSpace(
        dict(depth=element([1, 1], [2, 2], 1), kernel_size=element([3, 3], [7, 5], 2, 'block_wise'),
             out_channel=element([8, 16], [16, 32], 8)), 2, key='m')


# -- drawing ---------------------------------------------------------------------------------------------------------


@given(spaces())
def test_the_set_of_subnets_is_the_brute_force_one(space_of: tuple) -> None:
    stages, elements = space_of
    space = module_space(stages, elements)
    expected = all_settings(elements)
    depths = {settings['depth'] for settings in expected}
    assert space.variants('depth').size == len(depths)
    assert sum(space.variants('x', depth).size * space.variants('y', depth).size for depth in depths) == len(expected)
    members = {Subnet({'m': settings}) for settings in expected}
    assert len(members) == len(expected)
    rng = random.Random(0)
    for settings in (space.max(), space.min(), space.middle(), *(space.sample(rng) for _ in range(30))):
        assert Subnet({'m': settings}) in members


@given(spaces())
def test_max_and_min_hold_the_extremes_of_every_choice(space_of: tuple) -> None:
    stages, elements = space_of
    space = module_space(stages, elements)
    for settings, index in ((space.max(), -1), (space.min(), 0)):
        depth = tuple(stage[index] for stage in elements['depth'][2])
        assert settings['depth'] == depth
        for name in PER_BLOCK:
            strategy, _, choices = elements[name]
            counts = depth if strategy in BLOCK_NAMES else [1] * stages
            assert settings[name] == tuple(stage[index] for stage, count in zip(choices, counts) for _ in range(count))


@hypothesis.settings(max_examples=25)
@given(spaces(most_stages=2))
def test_draws_cover_the_space(space_of: tuple) -> None:
    stages, elements = space_of
    expected = {Subnet({'m': settings}) for settings in all_settings(elements)}
    assume(len(expected) <= 60)
    space, rng = module_space(stages, elements), random.Random(0)
    found: set[Subnet] = set()
    for _ in range(20000):
        found.add(Subnet({'m': space.sample(rng)}))
        if found == expected:
            return
    raise AssertionError(f'never drawn: {expected - found}')


def test_depth_is_drawn_uniformly_and_then_the_rest_given_the_depth() -> None:
    space, rng = block_kernels(), random.Random(0)
    depths = Counter(space.sample(rng)['depth'] for _ in range(4000))
    assert set(depths) == {(1, 1), (1, 2), (2, 1), (2, 2)}
    assert all(900 < count < 1100 for count in depths.values())


@pytest.mark.parametrize('strategy', ['block_wise', 'ordered_block_wise'])
def test_block_wise_lengths_follow_the_depth(strategy: str) -> None:
    space = ModuleSpace(
        dict(depth=element([1, 1], [2, 4], 1), kernel_size=element([3, 3], [5, 7], 2, strategy)), 2)
    rng = random.Random(0)
    for _ in range(200):
        settings = space.sample(rng)
        assert len(settings['kernel_size']) == sum(settings['depth'])
        first = settings['depth'][0]
        assert set(settings['kernel_size'][:first]) <= {3, 5}
        assert strategy == 'block_wise' or list(settings['kernel_size']) == sorted(settings['kernel_size'])


def test_another_elements_stage_wise_depth_follows_the_depth() -> None:
    space = ModuleSpace(
        dict(depth=element([1, 1], [3, 2], 1, 'stage_wise_depth'),
             out_channel=element([8, 16], [24, 48], [8, 16], 'stage_wise_depth')), 2)
    rng, second = random.Random(0), set()
    for _ in range(300):
        settings = space.sample(rng)
        assert settings['out_channel'][0] == settings['depth'][0] * 8  # three choices each: linked
        second.add((settings['depth'][1], settings['out_channel'][1]))
    assert second == {(depth, width) for depth in (1, 2) for width in (16, 32, 48)}  # two and three: independent


def test_r18() -> None:
    space = r18()
    assert space.max()['backbone'] == MAX
    assert space.min()['backbone'] == MIN
    assert space.max()['bbox_head.cls_tower'] == dict(depth=(4, ), out_channel=(128, ), kernel_size=(3, ))
    middle = dict(MAX, depth=(1, 2, 3, 3, 5), out_channel=(48, 64, 128, 256, 512))
    assert space.middle() == Subnet({'backbone': middle,
                                     'bbox_head.cls_tower': dict(depth=(4, ), out_channel=(96, ), kernel_size=(3, ))})


def test_a_seed_gives_these_subnets_for_ever() -> None:
    """A resumed run, another rank and the next release must all draw the same."""
    drawn = [r18().sample(random.Random(seed)) for seed in (0, 1)]
    assert [subnet['backbone']['depth'] for subnet in drawn] == [(1, 2, 3, 2, 5), (1, 1, 4, 2, 5)]
    assert [subnet['backbone']['out_channel'] for subnet in drawn] == [
        (64, 64, 128, 256, 512), (32, 64, 128, 256, 640)]
    assert [subnet['bbox_head.cls_tower']['out_channel'] for subnet in drawn] == [(96, ), (96, )]


def test_same_generator_state_same_draws_and_no_global_state() -> None:
    space = r18()
    before = random.getstate(), repr(np.random.get_state()), torch.get_rng_state()  # noqa: NPY002
    first, second = random.Random(7), random.Random(7)
    assert [space.sample(first) for _ in range(20)] == [r18().sample(second) for _ in range(20)]
    assert random.getstate() == before[0]
    assert repr(np.random.get_state()) == before[1]  # noqa: NPY002
    assert torch.equal(torch.get_rng_state(), before[2])


# -- canonical form --------------------------------------------------------------------------------------------------


def stage_form(values: tuple, depth: tuple) -> list | None:
    """One value a stage, from one value a block; None where the blocks of a stage differ."""
    stages, start = [], 0
    for count in depth:
        stages.append(set(values[start:start + count]))
        start += count
    return [stage.pop() for stage in stages] if all(len(stage) == 1 for stage in stages) else None


@given(spaces(), st.integers(0, 10**6))
def test_both_forms_give_one_canonical_form(space_of: tuple, seed: int) -> None:
    stages, elements = space_of
    space = SearchSpace({'m': module_space(stages, elements)})
    subnet = space.sample(random.Random(seed))
    given_as = dict(subnet['m'])
    for name in PER_BLOCK:
        values, depth = given_as[name], given_as['depth']
        if elements[name][0] in BLOCK_NAMES:
            stage_values = stage_form(values, depth)
            given_as[name] = stage_values if stage_values is not None else list(values)
        else:
            given_as[name] = [value for value, count in zip(values, depth) for _ in range(count)]
    same = space.canonical({'m': given_as})
    assert same == subnet
    assert hash(same) == hash(subnet)
    assert same.to_dict() == subnet.to_dict()


@given(spaces(), st.integers(0, 10**6))
def test_canonical_is_idempotent_and_survives_json(space_of: tuple, seed: int) -> None:
    stages, elements = space_of
    space = SearchSpace({'m': module_space(stages, elements)})
    subnet = space.sample(random.Random(seed))
    text = json.dumps(subnet.to_dict())
    for again in (space.canonical(subnet), space.canonical(subnet.to_dict()), space.canonical(json.loads(text))):
        assert again == subnet
        assert hash(again) == hash(subnet)
        assert json.dumps(again.to_dict()) == text


def test_stage_values_of_a_block_wise_element_are_spread_over_its_blocks() -> None:
    canonical = block_kernels().canonical(dict(depth=[2, 1], kernel_size=[7, 3], out_channel=[8, 16]))
    assert canonical == dict(depth=(2, 1), kernel_size=(7, 7, 3), out_channel=(8, 16))


def test_block_values_of_a_stage_wise_element_are_put_together() -> None:
    canonical = block_kernels().canonical(dict(depth=[2, 1], kernel_size=[7, 5, 3], out_channel=[8, 8, 16]))
    assert canonical == dict(depth=(2, 1), kernel_size=(7, 5, 3), out_channel=(8, 16))


def test_order_of_elements_and_modules_does_not_matter() -> None:
    space = r18()
    subnet = space.sample(random.Random(0)).to_dict()
    turned = {path: dict(reversed(elements.items())) for path, elements in reversed(subnet.items())}
    assert space.canonical(turned) == space.canonical(subnet)
    assert hash(space.canonical(turned)) == hash(space.canonical(subnet))


def test_what_is_fixed_may_be_left_out() -> None:
    space = r18()
    subnet = space.canonical({'backbone': dict(depth=MIN['depth'], out_channel=MIN['out_channel']),
                              'bbox_head.cls_tower': dict(out_channel=[64])})
    assert subnet == space.min()
    fixed = SearchSpace({'a': ModuleSpace(dict(depth=[2]), 1), 'b': ModuleSpace(dict(depth=element([1], [2], 1)), 1)})
    assert fixed.canonical({'b': dict(depth=[1])})['a'] == dict(depth=(2, ))


def test_whole_numbers_are_written_alike() -> None:
    space = ModuleSpace(dict(depth=[1], expand_ratio=element([0.5], [1.0], 0.5)), 1)
    for given_value in (1, 1.0, np.float64(1)):
        assert json.dumps(space.canonical(dict(expand_ratio=[given_value]))) == '{"depth": [1], "expand_ratio": [1]}'


def test_subnet_is_an_immutable_value() -> None:
    subnet = r18().min()
    subnet['backbone']['depth'] = (9, ) * 5  # type: ignore[index]
    subnet.to_dict()['backbone']['depth'][0] = 9
    assert subnet == r18().min()
    assert subnet != r18().max()
    assert subnet != subnet.to_dict()
    assert list(subnet) == ['backbone', 'bbox_head.cls_tower']
    assert len(subnet) == 2
    assert str([1, 1, 2, 2, 4]) in repr(subnet)
    assert Subnet(subnet.to_dict()) == subnet
    assert hash(Subnet(subnet.to_dict())) == hash(subnet)
    assert len({subnet, r18().min(), r18().max()}) == 2


# -- block by block --------------------------------------------------------------------------------------------------


def test_blocks() -> None:
    blocks = block_kernels().blocks(dict(depth=(2, 1), kernel_size=(7, 5, 3), out_channel=(8, 16)))
    assert blocks == [[dict(kernel_size=7, out_channel=8), dict(kernel_size=5, out_channel=8)],
                      [dict(kernel_size=3, out_channel=16)]]


def test_fixed_values_per_block() -> None:
    space = ModuleSpace(dict(depth=[2, 1], kernel_size=[3, 5, 7], out_channel=[8, 8, 16]), 2)
    assert [space.choices('kernel_size', *where) for where in ((0, 0), (0, 1), (1, 0))] == [(3, ), (5, ), (7, )]
    assert space.choices('out_channel', 0, 1) == (8, )
    assert space.max() == space.min() == dict(depth=(2, 1), kernel_size=(3, 5, 7), out_channel=(8, 16))
    assert space.canonical({}) == space.max()
    assert not space.searched
    assert not space.is_supernet
    with pytest.raises(ConfigError, match='block 1'):
        space.canonical(dict(kernel_size=[3, 3, 7]))


def test_choices_of_a_searched_element_are_the_same_in_each_block() -> None:
    assert block_kernels().choices('kernel_size', 0, 1) == (3, 5, 7)


def test_one_choice_is_a_supernet_without_a_search() -> None:
    space = ModuleSpace(dict(depth=[1], out_channel=element([8], [8], 8)), 1)
    assert space.is_supernet
    assert not space.searched
    assert space.canonical({}) == dict(depth=(1, ), out_channel=(8, ))
    assert block_kernels().searched


# -- refusals --------------------------------------------------------------------------------------------------------

GOOD = dict(depth=[2, 1], kernel_size=[7, 5, 3], out_channel=[8, 16])

LENGTHS = 'must be a list of one value per stage (2)'
ONE_VALUE = 'must be the same for all blocks of a stage, got'

# settings of `block_kernels`, the message after "backbone"
REFUSED_SETTINGS: list[tuple[Any, str]] = [
    ([1], ' must be a dict with keys among depth, kernel_size, out_channel, got [1]'),
    ({**GOOD, 3: [8, 8], 'width': [8]},
     " must be a dict with keys among depth, kernel_size, out_channel, got key 3, 'width'"),
    (dict(depth=[2, 1], out_channel=[8, 16]),
     '.kernel_size is missing; give one of [[3, 5, 7], [3, 5]], stage by stage'),
    (dict(GOOD, depth=[2, 3]), '.depth must be one of [1, 2] in stage 1, got 3'),
    (dict(GOOD, depth=[2, True]), '.depth[1] must be an integer >= 1, got True'),
    (dict(GOOD, depth=[2]), f'.depth {LENGTHS}, got (2,)'),
    (dict(GOOD, depth=[2, 1, 1]), f'.depth {LENGTHS}, got (2, 1, 1)'),
    (dict(GOOD, kernel_size=[7, 5, 7]), '.kernel_size must be one of [3, 5] in block 2, got 7'),
    (dict(GOOD, kernel_size=[7, 4, 3]), '.kernel_size[1] must be an odd integer >= 1, got 4'),
    (dict(GOOD, kernel_size=[7, 5, 3, 3]), f'.kernel_size {LENGTHS} or one per block (3), got (7, 5, 3, 3)'),
    (dict(GOOD, kernel_size=3), '.kernel_size must be a non-empty list of numbers, got 3'),
    (dict(GOOD, kernel_size=[[7], [5], [3]]), '.kernel_size[0] must be an odd integer >= 1, got [7]'),
    (dict(GOOD, out_channel=[8, 8]), '.out_channel must be one of [16, 24, 32] in stage 1, got 8'),
    (dict(GOOD, out_channel=[8, 16, 16]), f'.out_channel {ONE_VALUE} (8, 16, 16)'),
]


@pytest.mark.parametrize(('settings', 'message'), REFUSED_SETTINGS)
def test_settings_refused(settings: Any, message: str) -> None:
    assert block_kernels().canonical(GOOD)
    with pytest.raises(ConfigError) as error:
        block_kernels().canonical(settings, 'backbone')
    assert str(error.value) == f'backbone{message}'


@given(spaces(), st.integers(0, 10**6), st.data())
def test_canonical_accepts_the_space_and_nothing_else(space_of: tuple, seed: int, data: st.DataObject) -> None:
    """One changed gene is either still in the brute-force space, or refused."""
    stages, elements = space_of
    space = module_space(stages, elements)
    settings = {name: list(values) for name, values in space.sample(random.Random(seed)).items()}
    name = data.draw(st.sampled_from(PER_BLOCK))
    position = data.draw(st.integers(0, len(settings[name]) - 1))
    settings[name][position] = data.draw(st.integers(1, 9))
    members = [{key: list(value) for key, value in member.items()} for member in all_settings(elements)]
    if settings in members:
        assert space.canonical(settings) == {key: tuple(value) for key, value in settings.items()}
    else:
        with pytest.raises(ConfigError, match=rf'm\.{name} must be '):
            space.canonical(settings)


# what the elements of a module of two stages must not be, the message
REFUSED_SPACES: list[tuple[dict, str]] = [
    (dict(out_channel=[8, 8]), 'm.depth is missing; give the number of blocks per stage'),
    *(({'depth': [1, 1], name: element([8, 8], [16, 16], 8, 'block_wise')},
       f'm.{name}.sample_strategy must be net-wise or stage-wise (only kernel_size, expand_ratio may differ between '
       "blocks of a stage), got 'block_wise'") for name in ('out_channel', 'depth')),
    (dict(depth=[2, 1], out_channel=[8, 16, 8]), f'm.out_channel {ONE_VALUE} (8, 16, 8)'),
    (dict(depth=[2, 1], kernel_size=[3, 3, 3, 3]), f'm.kernel_size {LENGTHS} or one per block (3), got (3, 3, 3, 3)'),
    (dict(depth=element([1, 1], [2, 1], 1), kernel_size=[3, 3, 3]), f'm.kernel_size {LENGTHS}, got (3, 3, 3)'),
    (dict(depth=[1, 1], kernel_size=element([5, 3], [5, 5], 2, 'ordered_stage_wise')),
     "m.kernel_size: 'ordered_stage_wise' cannot draw the smallest subnet [5, 3]: its value must be 1 to 1000 times "
     'the value before it, 5, in stage 1 by its ordering rule, got 3'),
]


@pytest.mark.parametrize(('elements', 'message'), REFUSED_SPACES)
def test_spaces_refused(elements: dict, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        ModuleSpace(elements, 2, key='m')
    assert str(error.value) == message


MODULES = 'subnet settings must be a dict with keys among backbone, bbox_head.cls_tower, image_size, got'


@pytest.mark.parametrize(('settings', 'message'), [
    ([('backbone', {})], f"{MODULES} [('backbone', {{}})]"),
    ({'neck': {}, 3: {}}, f"{MODULES} key 'neck', 3"),
    ({'backbone': MAX}, 'subnet settings: bbox_head.cls_tower is missing (given: backbone); give its settings too'),
    ({}, 'subnet settings: backbone is missing (given: nothing); give its settings too'),
    ({'backbone': MAX, 'bbox_head.cls_tower': dict(out_channel=[65])},
     'bbox_head.cls_tower.out_channel must be one of [64, 96, 128] in stage 0, got 65'),
    ({'backbone': 'max', 'bbox_head.cls_tower': dict(out_channel=[64])},
     "backbone must be a dict with keys among depth, out_channel, kernel_size, expand_ratio, got 'max'"),
])
def test_model_settings_refused(settings: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        r18().canonical(settings)
    assert str(error.value) == message


# -- the room ---------------------------------------------------------------------------------------------------------


def test_space_imports_neither_torch_nor_a_higher_room() -> None:
    allowed = {'yaml', 'mmbignas.errors',
               *(f'mmbignas.utils.{name}' for name in ('files', 'locks', 'partial_folders', 'plain_data', 'rules'))}
    room = Path(mmbignas.space.__file__).parent
    files = sorted(room.glob('*.py'))
    assert len(files) >= 9
    ground = ['errors.py', *(f'{name.removeprefix("mmbignas.").replace(".", "/")}.py' for name in allowed if
                             name.startswith('mmbignas.utils'))]
    for file in [*files, *(room.parent / name for name in ground)]:
        for node in ast.walk(ast.parse(file.read_text())):
            names: list[str] = []
            if isinstance(node, ast.Import):
                names = [alias.name for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                assert node.level == 0
                names = [str(node.module)]
            for name in names:
                known = name in allowed or name.partition('.')[0] in sys.stdlib_module_names
                assert known or name.startswith('mmbignas.space'), f'{file.name} imports {name}'


@pytest.mark.parametrize(('given_as', 'message'), [
    (dict(a=dict(kernel_size=[5, 9])), r'a\.kernel_size must be .*9'),
    (dict(a=dict(depth=[1, 3])), r'a\.depth must be .*3'),
    (dict(b=dict(depth=[1, 1], kernel_size=[4, 3])), r'b\.kernel_size\[0\] must be .*4'),
    (dict(a=dict(depth=[1, 1]), b=dict(kernel_size=[3, 4])), r'b\.kernel_size\[1\] must be .*4'),
    (dict(a=dict(depth=[1, 1]), image_size=[1, 1]), r'image_size must be .*\[1, 1\]'),
    (dict(a=dict(depth=[1, 1])), r'a\.kernel_size is missing'),
    (dict(a=dict(kernel_size=[5, 7, 7])), r'a\.depth is missing'),
    (dict(b=dict(depth=[1, 1], kernel_size=[3, 3])), r'subnet settings: a is missing'),
])
def test_what_is_missing_hides_no_wrong_value(given_as: dict, message: str) -> None:
    own = SearchSpace(dict(a=block_kernels(), b=block_kernels()))
    with pytest.raises(ConfigError, match=f'^{message}'):
        own.canonical(given_as)
