"""Settings that results depend on: everything counts but what is known not to matter."""
from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from mmengine.config import Config

from mmbignas.utils.identity import LONGEST, config_hash, differences, listed_differences, settings_of


def config(folder: str = '/data/a') -> dict[str, Any]:
    return dict(
        model=dict(type='RetinaNet', data_preprocessor=dict(mean=[1., 2.], std=(3, 4)),
                   init_cfg=dict(type='Pretrained', checkpoint=f'{folder}/w.pth'), heads=[dict(a=1), dict(a=2)],
                   empty={}, act=torch.nn.ReLU),
        loader=dict(batch_size=4, num_workers=2, persistent_workers=True, pin_memory=True, dataset=dict(
            data_root=folder, ann_file='val.json', data_prefix=dict(img='val/'), backend_args=None,
            pipeline=[dict(type='LoadImageFromFile', backend_args=dict(backend='local')), dict(
                type='Resize', scale=(32, 32))])),
        evaluator=[dict(type='CocoMetric', ann_file=f'{folder}/val.json', outfile_prefix='x', collect_device='cpu')])


def test_places_and_values() -> None:
    assert settings_of(**config()) == {
        'model.type': 'RetinaNet', 'model.data_preprocessor.mean': [1., 2.], 'model.data_preprocessor.std': [3, 4],
        'model.heads[0].a': 1, 'model.heads[1].a': 2, 'model.empty': {},
        'model.act': 'torch.nn.modules.activation.ReLU', 'loader.batch_size': 4, 'loader.dataset.ann_file': 'val.json',
        'loader.dataset.pipeline[0].type': 'LoadImageFromFile', 'loader.dataset.pipeline[1].type': 'Resize',
        'loader.dataset.pipeline[1].scale': [32, 32], 'evaluator[0].type': 'CocoMetric',
        'evaluator[0].ann_file': 'val.json'}
    assert settings_of(**Config(config())._cfg_dict) == settings_of(**config())
    assert settings_of(**config('/mnt/other')) == settings_of(**config())


@pytest.mark.parametrize(('path', 'value'), [
    ('model.data_preprocessor.mean', [1., 2.1]), ('model.act', torch.nn.SiLU), ('model.new', None),
    ('model.new', False), ('loader.batch_size', 5), ('loader.dataset.metainfo', dict(classes=['a'])),
    ('loader.drop_last', True), ('evaluator', []), ('model.weights', np.arange(3)), ('model.inf', float('inf'))])
def test_whatever_else_changes_counts(path: str, value: Any) -> None:
    other = copy.deepcopy(config())
    *parents, name = path.split('.')
    place = other
    for parent in parents:
        place = place[parent]
    place[name] = value
    before, after = settings_of(**config()), settings_of(**other)
    found = differences(before, after)
    assert found and all(text.startswith(path) for text in found)
    assert config_hash(config()) != config_hash(other)
    json.dumps(after, allow_nan=False)


def test_files_count_by_their_content(tmp_path: Path) -> None:
    for name, content in (('a', '[1]'), ('moved', '[1]'), ('other', '[2]')):
        (tmp_path / name / 'images').mkdir(parents=True)
        (tmp_path / name / 'val.json').write_text(content)
        (tmp_path / name / 'classes.txt').write_text(content)

    def settings(name: str) -> dict[str, Any]:
        folder = tmp_path / name
        return settings_of(loader=dict(dataset=dict(data_root=str(folder), ann_file='val.json', more=[
            dict(ann_file=str(folder / 'val.json')), dict(ann_file=''), dict(ann_file='s3://bucket/b.json')])),
            plan=str(folder / 'classes.txt'), images=folder / 'images', names=dict(classes=str(folder / 'classes.txt')))

    first = settings('a')
    assert first == settings('moved')
    assert first['loader.dataset.more[2].ann_file'] == 'b.json' and first['images'] == 'a folder'
    assert {text.split(' ')[0] for text in differences(first, settings('other'))} == {
        'loader.dataset.ann_file', 'loader.dataset.more[0].ann_file', 'plan', 'names.classes'}


def test_files_of_hooks_count_by_their_names(tmp_path: Path) -> None:
    """They may be written by the run itself, which then could not go on."""
    config = dict(custom_hooks=[dict(type='a.B', path=str(tmp_path / 'flag'))])
    before = settings_of(**config)
    (tmp_path / 'flag').write_text('x')
    assert settings_of(**config) == before == {'custom_hooks[0].type': 'a.B', 'custom_hooks[0].path': 'flag'}


def test_types_are_no_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / 'mmdet.ResNet').write_text('x')
    (tmp_path / 'train').mkdir()
    assert settings_of(model=dict(type='mmdet.ResNet', split='train')) == {
        'model.type': 'mmdet.ResNet', 'model.split': 'train'}


def test_long_values_are_hashed() -> None:
    classes = [f'class {number}' for number in range(80)]
    found = settings_of(data=dict(classes=classes, few=classes[:3]))
    assert found['data.few'] == classes[:3] and all(len(str(own)) <= LONGEST for own in found.values())
    other = settings_of(data=dict(classes=[*classes[1:], classes[0]], few=classes[:3]))
    assert differences(found, other) == ['data.classes']  # without values that say nothing


def test_differences_are_named() -> None:
    old = dict(supernet='a' * 64, space='b' * 64, evaluation='c' * 64)
    new = {'weights': 'd' * 64, 'space': 'b' * 64, 'model.a': 1, 'model.b': 2}
    assert differences(old, new) == [
        'weights (nothing about it there)', 'model (nothing about it there)', 'supernet (nothing about it here)',
        'evaluation (nothing about it here)']
    assert differences({**new, 'model.c': 3}, {**new, 'model.b': 5, 'model.d': 1}) == [
        'model.b (2 there, 5 here)', 'model.d (nothing about it there)', 'model.c (nothing about it here)']
    assert differences(new, dict(new)) == []
    many = differences({}, {f'part{number}': 1 for number in range(9)})
    assert listed_differences(many).endswith('part5 (nothing about it there) and 3 more')
    assert len(differences(dict(a='x' * 10**6), dict(a=[1] * 10**6))[0]) < 500
