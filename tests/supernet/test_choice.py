"""Naming subnets in a config; image sizes where a subnet is applied."""
from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

import pytest
from torch import nn

from mmbignas.errors import ConfigError
from mmbignas.space import ModuleSettings, ModuleSpace, SearchSpace, save_subnet
from mmbignas.supernet import Supernet, parse_choices
from mmbignas.supernet.choice import parse_choice


def module_space() -> ModuleSpace:
    return ModuleSpace(
        dict(depth=dict(space=dict(min=[1, 1], max=[2, 3], stride=1)),
             kernel_size=dict(space=dict(min=[3, 3], max=[5, 7], stride=2), sample_strategy='block_wise')), 2)


def space(image_sizes: Any = ()) -> SearchSpace:
    return SearchSpace({'net': module_space()}, image_sizes)


@pytest.mark.parametrize('sizes', [(), [(32, 32), (64, 64)]])
def test_all_kinds_of_entries(sizes: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own = space(sizes)
    subnets = list(own.traverse())
    save_subnet(subnets[5], tmp_path / 'mobile.yaml', macs=1)
    (tmp_path / 'bare.json').write_text(json.dumps(subnets[6].to_dict()))
    monkeypatch.chdir(tmp_path)
    mine = dict(name='mine', subnet_settings=subnets[9].to_dict())
    choices = parse_choices(['max', '7', str(tmp_path / 'mobile.yaml'), 'random', 'bare.json', 'min',
                             subnets[8].to_dict(), mine, 'middle', 'random', 'max', 7, 'bare.json', 0], own, 'subnets')
    assert [choice.name for choice in choices] == [
        'max', 'subnet7', 'mobile', 'random0', 'bare', 'min', 'fixed0', 'mine', 'middle', 'random1', 'max1',
        'subnet7_1', 'bare1', 'subnet0']
    assert [choice.subnet for choice in choices] == [
        subnets[-1], subnets[7], subnets[5], None, subnets[6], subnets[0], subnets[8], subnets[9], own.middle(), None,
        subnets[-1], subnets[7], subnets[6], subnets[0]]
    assert choices[3].draw(own, random.Random(4)) == own.sample(random.Random(4))
    assert choices[1].draw(own, random.Random(4)) == subnets[7]


KINDS = 'must be max, min, middle, random, a number from 0 to 233, or a file that ends in .json, .yaml, .yml'


@pytest.mark.parametrize(('choice', 'message'), [
    ('largest', f" {KINDS}, or settings, got 'largest'"),
    ('subnet.txt', f" {KINDS}, or settings, got 'subnet.txt'"),
    (True, f' {KINDS}, or settings, got True'),
    (['max'], f" {KINDS}, or settings, got ['max']"),
    (234, ': subnet number must be an integer from 0 to 233, got 234'),
    ('-5', ': subnet number must be an integer from 0 to 233, got -5'),
    ('1' * 5000, f" {KINDS}, or settings, got '{'1' * 57}...{'1' * 58}'"),
    ('no/such.json', ': no/such.json: cannot be read (No such file or directory); give an existing file'),
    (dict(net=dict(depth=[1, 4])), ': net.depth must be one of [1, 2, 3] in stage 1, got 4'),
    (dict(name='a', subnet_settings=dict(head={})),
     ": subnet settings must be a dict with keys among net, image_size, got key 'head'"),
])
def test_entries_refused(choice: Any, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_choices(['max', choice], space(), 'val_cfg.subnets')
    assert str(error.value) == f'val_cfg.subnets[1]{message}'


def test_one_that_was_typed(tmp_path: Path) -> None:
    own = space()
    save_subnet(own[5], tmp_path / 'mobile.json')
    for typed, name, subnet in (('max', 'max', own.max()), ('random', 'random', None), ('233', 'subnet233', own[233]),
                                (str(tmp_path / 'mobile.json'), 'mobile', own[5])):
        choice = parse_choice(typed, own, '--subnet')
        assert (choice.name, choice.subnet) == (name, subnet)


def test_what_was_typed_is_not_offered_settings() -> None:
    with pytest.raises(ConfigError) as error:
        parse_choice('huge', space(), '--subnet')
    assert str(error.value) == f"--subnet {KINDS}, got 'huge'"
    with pytest.raises(ConfigError) as error:
        parse_choices(['max', 'huge'], space(), '--subnet', typed=True)
    assert str(error.value) == f"--subnet[1] {KINDS}, got 'huge'"
    with pytest.raises(ConfigError, match=r'^--subnet: subnet number must be an integer from 0 to 233, got -5$'):
        parse_choice('-5', space(), '--subnet')


@pytest.mark.parametrize('choices', ['max', 7, {}, []])
def test_lists_refused(choices: Any) -> None:
    with pytest.raises(ConfigError, match=r'val_cfg\.subnets must be a non-empty list of max.*, got '):
        parse_choices(choices, space(), 'val_cfg.subnets')


def test_a_file_of_another_space_is_named(tmp_path: Path) -> None:
    path = tmp_path / 'wide.json'
    path.write_text(json.dumps({'net': dict(depth=[1, 1], kernel_size=[3, 9])}))
    with pytest.raises(ConfigError) as error:
        parse_choices([str(path)], space(), 'val_cfg.subnets')
    assert str(error.value) == (f'val_cfg.subnets[0]: {path}: net.kernel_size must be one of [3, 5, 7] in block '
                                '1, got 9')


def test_names_that_would_meet_are_refused() -> None:
    own = dict(name='subnet7', subnet_settings=space().min().to_dict())
    assert [choice.name for choice in parse_choices([7, own], space(), 'k')] == ['subnet7', 'subnet7_1']
    clash = dict(name='subnet7_1', subnet_settings=space().min().to_dict())
    with pytest.raises(ConfigError, match="'subnet7_1' names 2 subnets"):
        parse_choices([7, 7, clash], space(), 'k')


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.search_space = module_space()
        self.applied: list[ModuleSettings] = []

    def apply_subnet(self, settings: ModuleSettings) -> None:
        self.applied.append(settings)


def test_a_model_passes_over_the_image_size() -> None:
    model = nn.ModuleDict({'net': Net()})
    supernet = Supernet(model)
    subnet = space([(32, 32), (64, 64)])[9]
    for given_as in (subnet, subnet.to_dict()):
        applied = supernet.apply(given_as)
        assert model['net'].applied[-1] == subnet['net']
        assert applied == supernet.current == supernet.space.canonical({'net': subnet['net']})
        assert applied.image_size is None
    assert subnet.image_size is not None
    with pytest.raises(ConfigError, match='subnet settings must be a dict with keys among net, .* got None'):
        supernet.apply(None)  # type: ignore[arg-type]
