"""What figures belong to: weights, space, data, and all of the config that can change a prediction."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.datasets import CocoDataset
from mmdet.utils import register_all_modules
from mmengine.config import Config

from mmbignas.errors import ConfigError
from mmbignas.evaluation import BNCalibrationHook
from mmbignas.evaluation.evaluation_identity import dataset_identity
from mmbignas.space import ModuleSpace, SearchSpace
from mmbignas.supernet.hashes import model_hash, space_hash
from mmbignas.utils.identity import differences
from tests.evaluation.test_sample_accuracy_loop import TRAINING, lines_of, runner_for
from tests.evaluation.test_subnet_val_loop import trained_model
from tests.toy import ToyDataset, ToyModel, dataloader

MODEL = dict(model=dict(type='ToyModel', data_preprocessor=dict(type='ToyPreprocessor', mean=[0, 0, 0], std=[1, 1, 1]),
                        test_cfg=dict(score_thr=.05)))


def test_model_hash_tells_weights_statistics_and_constants_apart() -> None:
    model = ToyModel()
    model.data_preprocessor.register_buffer('mean', torch.zeros(3), persistent=False)
    other = ToyModel(seed=1)
    other.data_preprocessor.register_buffer('mean', torch.zeros(3), persistent=False)
    before = model_hash(model)
    assert before != model_hash(other)
    for tensor in (model.head.weight, model.backbone.blocks[1][1].running_var, model.data_preprocessor.mean):
        value = tensor.data.flatten()[0].clone()
        tensor.data.flatten()[0].add_(1e-6)
        assert model_hash(model) != before
        tensor.data.flatten()[0].copy_(value)
        assert model_hash(model) == before
    assert model_hash(torch.nn.Linear(2, 2).bfloat16()) != before


def space(sizes: Any = (), **changes: Any) -> SearchSpace:
    elements = dict(depth=dict(space=dict(min=[1], max=[3], stride=1)),
                    out_channel=dict(space=dict(min=[4], max=[8], stride=2)))
    return SearchSpace(dict(backbone=ModuleSpace({**elements, **changes}, num_stages=1, key='backbone')), sizes)


def test_space_hash() -> None:
    others = [space(sizes=[(32, 32), (64, 64)]), space(kernel_size=[3]), space(kernel_size=[5]), space(
        out_channel=dict(space=dict(min=[4], max=[12], stride=4))), space(depth=[3]), space(
        kernel_size=dict(space=dict(min=[3], max=[5], stride=2))), space(
        kernel_size=dict(space=dict(min=[3], max=[5], stride=2), sample_strategy='block_wise'))]
    hashes = [space_hash(own) for own in [space(), *others]]
    assert len(set(hashes)) == len(hashes)
    assert space_hash(space()) == hashes[0]


def coco(folder: Path, boxes: Any = (1, 2, 30, 40), name: str = 'a.jpg', classes: Any = ('thing', ),
         image: bytes = b'12345') -> CocoDataset:
    folder.mkdir(exist_ok=True)
    content = dict(images=[dict(id=5, file_name=name, width=64, height=48)],
                   categories=[dict(id=1, name='thing'), dict(id=2, name='other')],
                   annotations=[dict(id=1, image_id=5, category_id=1, bbox=list(boxes), area=1200, iscrowd=0)])
    (folder / 'a.json').write_text(json.dumps(content))
    (folder / name).write_bytes(image)
    register_all_modules(init_default_scope=True)
    return CocoDataset(data_root=str(folder), ann_file='a.json', data_prefix=dict(img=''), pipeline=[],
                       metainfo=dict(classes=classes), test_mode=True)


def test_data_count_by_their_content(tmp_path: Path) -> None:
    expected = dataset_identity(coco(tmp_path / 'a'))
    assert expected['data.length'] == 1 and expected['data.metainfo.classes'] == ['thing']
    assert dataset_identity(coco(tmp_path / 'moved')) == expected
    for own, named in ((dict(boxes=(1, 2, 30, 41)), 'data.images'), (dict(name='b.jpg'), 'data.images'),
                       (dict(image=b'123456'), 'data.images'), (dict(classes=('other', )), 'data.metainfo.classes')):
        assert named in ' '.join(differences(expected, dataset_identity(coco(tmp_path / 'b', **own))))
    assert dataset_identity(ToyDataset(5)) != dataset_identity(ToyDataset(6))


def identity(folder: Path, cfg: Any = MODEL, **own: Any) -> dict[str, Any]:
    runner = runner_for(folder, cfg=cfg, **own)
    return runner.test_loop.survey.identity()


_first: dict[str, dict[str, Any]] = {}


def changed(folder: Path, cfg: Any = MODEL, before: Any = MODEL, **own: Any) -> set[str]:
    """The settings that differ from those of a plain run."""
    key = json.dumps(before)
    first = _first[key] if key in _first else _first.setdefault(key, identity(folder, before))
    return {text.partition(' ')[0] for text in differences(first, identity(folder, cfg, **own))}


def test_whatever_changes_predictions_changes_the_identity(tmp_path: Path) -> None:
    for path, value in (('data_preprocessor.mean', [1, 0, 0]), ('data_preprocessor.new', 3), ('test_cfg.score_thr', .1),
                        ('backbone.act_cfg', dict(type='SiLU')), ('head', dict(nothing_known=3))):
        cfg = Config(MODEL)
        cfg.merge_from_dict({f'model.{path}': value})
        named = changed(tmp_path, cfg.to_dict())
        assert named and all(name.startswith(f'model.{path}') for name in named), named
    top = changed(tmp_path, dict(MODEL, data_preprocessor=dict(mean=[1]), test_evaluator=dict(type='Top', k=5),
                                 test_dataloader=dict(batch_size=3, dataset=dict(pipeline=[dict(type='Flip')])),
                                 custom_hooks=[dict(type='EMAHook')], default_scope='mmpretrain'))
    assert top == {'data_preprocessor', 'test_evaluator', 'test_dataloader', 'custom_hooks[0].type', 'default_scope',
                   'custom_hooks'}
    assert changed(tmp_path, model=trained_model(seed=1)) == {'weights'}
    assert changed(tmp_path, hooks=[], calib_bn=False) == {'test_cfg.calib_bn', 'BNCalibrationHook'}
    assert changed(tmp_path, hooks=[BNCalibrationHook(6, dataloader(24))]) == {'BNCalibrationHook.num_images'}
    assert changed(tmp_path, fp16=True) == {'test_cfg.fp16'}
    assert changed(tmp_path, image_size=[[6, 6], [3, 3]]) == {'space', 'test_cfg.interpolation_type'}
    assert changed(tmp_path, image_size=[[6, 6]]) == {'test_cfg.image_size', 'test_cfg.interpolation_type'}
    assert changed(tmp_path, dict(MODEL, **TRAINING), sample_with_finetune=dict(max_iters=2)) == {
        'train_dataloader', 'test_cfg.sample_with_finetune.max_iters',
        'test_cfg.sample_with_finetune.optim_wrapper.type',
        'test_cfg.sample_with_finetune.optim_wrapper.optimizer.type', 'test_cfg.sample_with_finetune',
        'test_cfg.sample_with_finetune.optim_wrapper.optimizer.lr',
        'test_cfg.sample_with_finetune.optim_wrapper.optimizer.momentum'}


def test_what_cannot_matter_does_not(tmp_path: Path) -> None:
    other = dict(
        MODEL, work_dir='elsewhere', launcher='pytorch', load_from='b.pth', resume=True, log_level='DEBUG',
        randomness=dict(seed=3), env_cfg=dict(cudnn_benchmark=True), visualizer=dict(type='Visualizer'), my_note='x',
        optim_wrapper=dict(type='X'), train_cfg=dict(max_epochs=3), train_dataloader=dict(batch_size=8), val_cfg=dict(),
        val_dataloader=dict(batch_size=1), val_evaluator=[], auto_scale_lr=dict(enable=True), data_root='/data',
        default_hooks=dict(logger=dict(type='LoggerHook', interval=5), checkpoint=dict(type='CheckpointHook')),
        custom_hooks=[dict(type='mmbignas.StopHook'), dict(type='mmbignas.BNCalibrationHook')],
        test_dataloader=dict(num_workers=3, pin_memory=True, persistent_workers=True),
        test_evaluator=dict(collect_device='gpu', outfile_prefix='x'),
        test_cfg=dict(type='X', subnet_count=3, metric1='a', lut_path='b', parallel='subnet', predicted_count=0))
    other['model'] = dict(MODEL['model'], init_cfg=dict(type='Pretrained', checkpoint='a.pth'))
    before = dict(MODEL, test_dataloader=dict(num_workers=1), test_evaluator={})
    assert changed(tmp_path, other, before, subnet_count=7, seed=4, metric1='toy/accuracy', predicted_count=0,
                   flops_range=[None, '9G'], baseline_flops=100) == set()


def test_a_sample_resumed_with_another_normalisation(tmp_path: Path) -> None:
    """Old and new figures must not stand in one ledger; the same command goes on."""
    runner_for(tmp_path, subnet_count=2, cfg=MODEL).test()
    before = lines_of(tmp_path)
    cfg = Config(MODEL).to_dict()
    cfg['model']['data_preprocessor']['mean'] = [123.675, 116.28, 103.53]
    with pytest.raises(ConfigError, match=r'ledger.jsonl: holds figures .* which differs in '
                       r'model.data_preprocessor.mean \(\[0, 0, 0\] there, \[123.675, 116.28, 103.53\] here\); give'):
        runner_for(tmp_path, subnet_count=3, cfg=cfg).test()
    assert lines_of(tmp_path) == before
    runner_for(tmp_path, subnet_count=3, cfg=MODEL).test()
    assert lines_of(tmp_path)[:2] == before and len(lines_of(tmp_path)) == 3


def test_a_ledger_of_an_earlier_version(tmp_path: Path) -> None:
    path = tmp_path / 'sample_accuracy' / 'ledger.jsonl'
    path.parent.mkdir()
    old = {name: name[0] * 64 for name in ('supernet', 'space', 'data', 'evaluation')}
    path.write_text(json.dumps(dict(identity=old)) + '\n')
    with pytest.raises(ConfigError, match=r'which differs in space, weights \(nothing about it there\), .* more; give'):
        runner_for(tmp_path, subnet_count=2, cfg=MODEL).test()
