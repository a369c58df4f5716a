"""Subnets in files: what is written comes back, and what cannot be read is named."""
from __future__ import annotations

import json
import os
import random
import stat
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mmbignas.errors import ConfigError
from mmbignas.space import ModuleSpace, SearchSpace, json_number, load_subnet, save_subnet

RATIOS = [[0.1, 1 / 3, 1e-05, 2], [0.25, 1.1, 7e22]]


def space(image_sizes: Any = ()) -> SearchSpace:
    return SearchSpace({'backbone': ModuleSpace(
        dict(depth=dict(space=dict(min=[1, 1], max=[2, 3], stride=1)),
             expand_ratio=dict(space=dict(dynamic_range=RATIOS), sample_strategy='block_wise')), 2)}, image_sizes)


@pytest.mark.parametrize('suffix', ['.json', '.yaml', '.yml'])
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(seed=st.integers(0, 10**6), sizes=st.sampled_from([(), [(32, 64), (64, 64)]]))
def test_round_trip(suffix: str, seed: int, sizes: Any, tmp_path: Path) -> None:
    subnet = space(sizes).sample_uniform(random.Random(seed))
    path = tmp_path / f'subnet{suffix}'
    save_subnet(subnet, path, macs=123456789, metrics={'mAP': 0.4})
    assert load_subnet(path, space(sizes)) == subnet
    assert load_subnet(str(path), space(sizes)).to_dict() == subnet.to_dict()
    assert os.listdir(tmp_path) == [path.name]
    content = json.loads(path.read_text()) if suffix == '.json' else yaml.safe_load(path.read_text())
    assert content == dict(subnet_settings=subnet.to_dict(), macs=123456789, metrics={'mAP': 0.4})
    assert list(content) == ['subnet_settings', 'macs', 'metrics']


def test_bare_settings_and_a_line_of_a_record(tmp_path: Path) -> None:
    subnet = space().sample(random.Random(0))
    bare, line, partial = tmp_path / 'bare.json', tmp_path / 'line.json', tmp_path / 'partial.yml'
    bare.write_text(json.dumps(subnet.to_dict()))
    line.write_text(json.dumps(dict(name='max_calib', iter=3, calib_bn=True, subnet_settings=subnet.to_dict(),
                                    metrics={'coco/bbox_mAP': 0.1})) + '\n')
    partial.write_text('backbone:\n  depth: [1, 1]\n  expand_ratio: [2, 0.25]\n')
    assert load_subnet(bare, space()) == subnet
    assert load_subnet(line, space()) == subnet
    assert load_subnet(partial, space()) == space().canonical(
        {'backbone': dict(depth=[1, 1], expand_ratio=[2, 0.25])})


def test_a_file_has_the_permissions_of_any_other(tmp_path: Path) -> None:
    save_subnet(space().min(), tmp_path / 'subnet.json')
    (tmp_path / 'other').write_text('')
    assert stat.S_IMODE((tmp_path / 'subnet.json').stat().st_mode) == stat.S_IMODE((tmp_path / 'other').stat().st_mode)


@pytest.mark.parametrize('suffix', ['.json', '.yaml'])
def test_what_goes_wrong_leaves_the_old_file(suffix: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / f'subnet{suffix}'
    save_subnet(space().min(), path)
    with pytest.raises((TypeError, yaml.YAMLError)):
        save_subnet(space().max(), path, info=object())

    def full(*_: Any) -> None:
        raise OSError(28, 'No space left on device')

    monkeypatch.setattr(os, 'replace', full)
    with pytest.raises(ConfigError, match='No space left on device'):
        save_subnet(space().max(), path)
    assert load_subnet(path, space()) == space().min()
    assert os.listdir(tmp_path) == [path.name]


def message(path: Path) -> str:
    with pytest.raises(ConfigError) as error:
        load_subnet(path, space())
    assert str(error.value).startswith(f'{path}: ')
    assert '\n' not in str(error.value)
    return str(error.value)


@pytest.mark.parametrize(('name', 'text', 'parts'), [
    ('a.json', '{"subnet_settings": ', ['not valid JSON', 'line 1 column 21']),
    ('a.json', '', ['not valid JSON']),
    ('a.json', '{"a": 1}\n{"a": 2}\n', ['not valid JSON', 'line 2']),
    ('a.yaml', 'a: [1, 2\nb: 3\n', ['not valid YAML', 'line 2']),
    ('a.yml', 'a: !!python/object:os.system {}', ['not valid YAML', 'python/object']),
    ('a.yml', '', ['must be a dict', 'got None']),
    ('a.json', '[1]', ['must be a dict', 'got [1]']),
    ('a.json', '{"subnet_settings": null}', ['must be a dict', 'got None']),
    ('a.json', '{"neck": {}}', ["got key 'neck'", 'backbone']),
    ('a.json', '{"backbone": {"depth": [1, 4], "expand_ratio": [2, 0.25]}}',
     ['backbone.depth must be one of [1, 2, 3] in stage 1, got 4']),
    ('a.json', '{"subnet_settings": {"backbone": {"depth": [1, 1], "expand_ratio": [2, 0.3]}}}',
     ['backbone.expand_ratio must be one of [0.25, 1.1, ', 'in block 1, got 0.3']),
])
def test_contents_refused(name: str, text: str, parts: list[str], tmp_path: Path) -> None:
    (tmp_path / name).write_text(text)
    for part in parts:
        assert part in message(tmp_path / name)


def test_files_that_cannot_be_read(tmp_path: Path) -> None:
    assert 'No such file' in message(tmp_path / 'missing.json')
    (tmp_path / 'folder.json').mkdir()
    assert 'Is a directory' in message(tmp_path / 'folder.json')
    (tmp_path / 'binary.yaml').write_bytes(b'\xff\xfe\x00')
    assert 'not valid YAML' in message(tmp_path / 'binary.yaml')
    for name in ('subnet.txt', 'subnet', 'subnet.JSON'):
        assert 'the suffix must be one of .json, .yaml, .yml, got ' in message(tmp_path / name)


def test_files_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / 'file').write_text('')
    for path, part in ((tmp_path / 'no' / 'a.json', 'No such file'), (tmp_path / 'file' / 'a.yaml', 'Not a directory'),
                       (tmp_path / 'a.pth', '.json, .yaml, .yml')):
        with pytest.raises(ConfigError) as error:
            save_subnet(space().min(), path)
        assert str(error.value).startswith(f'{path}: ')
        assert part in str(error.value)
        assert '\n' not in str(error.value)
    assert os.listdir(tmp_path) == ['file']


def test_numbers_in_json() -> None:
    """As floating point numbers, which some readers take them for, these are still exact."""
    for number in (0, 12345, 2**53 - 1, 2**53):
        assert json_number(number) == number == int(float(number))
    assert json_number(2**53 + 1) == str(2**53 + 1)
