"""The config of a run with one subnet alone."""
from __future__ import annotations

import copy
from typing import Any

import pytest
from mmengine.config import Config

from mmbignas.engine.hooks import DistillHook
from mmbignas.engine.plain_config import plain_run_config

MODEL = dict(type='RetinaNet', backbone=dict(type='mmbignas.BigResNet', out_channel=[8] * 5))


def run(**changes: Any) -> dict[str, Any]:
    return {**dict(
        model=dict(type='RetinaNet'), train_dataloader=dict(batch_size=8), optim_wrapper=dict(optimizer=dict(lr=0.1)),
        train_cfg=dict(type='mmbignas.SandwichTrainLoop', max_epochs=7, val_interval=2, val_begin=3,
                       sample_subnet_num=4, sample_strategy=['max', 'min'], valid_before_train=True),
        val_cfg=dict(type='mmbignas.SubnetValLoop', subnets=['max'], calib_bn=True),
        test_cfg=dict(type='mmbignas.EvaluateSubnetLoop', subnets=['max'], image_size=[64, 64], fp16=True),
        custom_hooks=[dict(type='mmbignas.BNCalibrationHook'), dict(type='EMAHook'), dict(type=DistillHook, jobs={}),
                      dict(type='mmbignas.RegularizeLargestHook')],
        default_hooks=dict(checkpoint=dict(interval=1, save_best='min_calib/coco/bbox_mAP')),
        load_from='x.pth', resume=True, launcher='pytorch', work_dir='w'), **changes}


def test_everything_is_ordinary() -> None:
    cfg = Config(run())
    before = copy.deepcopy(cfg.to_dict())
    plain = plain_run_config(cfg, MODEL).to_dict()
    assert cfg.to_dict() == before
    assert plain == dict(
        model=dict(MODEL, init_cfg=None), train_dataloader=dict(batch_size=8),
        optim_wrapper=dict(optimizer=dict(lr=0.1)),
        train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=7, val_interval=2, val_begin=3),
        val_cfg=dict(type='ValLoop'), test_cfg=dict(type='TestLoop', fp16=True), custom_hooks=[dict(type='EMAHook')],
        default_hooks=dict(checkpoint=dict(interval=1, save_best='coco/bbox_mAP')),
        custom_imports=dict(imports=['mmbignas']), load_from=None, resume=False)


def test_what_is_ordinary_stays() -> None:
    own = run(train_cfg=dict(by_epoch=True, max_epochs=3), val_cfg=dict(type='ValLoop'), test_cfg=dict(fp16=False),
              default_hooks=dict(checkpoint=dict(save_best='coco/bbox_mAP')), custom_hooks=[],
              custom_imports=dict(imports=['mine', 'mmbignas.models'], allow_failed_imports=True))
    plain = plain_run_config(Config(own), MODEL)
    for name in ('train_cfg', 'val_cfg', 'test_cfg', 'default_hooks', 'custom_imports'):
        assert plain[name] == own[name]
    assert 'custom_hooks' not in plain


@pytest.mark.parametrize(('given', 'expected'), [
    ('auto', 'auto'), (['max/coco/bbox_mAP', 'min/coco/bbox_mAP_50'], ['coco/bbox_mAP', 'coco/bbox_mAP_50'])])
def test_save_best(given: Any, expected: Any) -> None:
    plain = plain_run_config(Config(run(default_hooks=dict(checkpoint=dict(save_best=given)))), MODEL)
    assert plain.default_hooks.checkpoint.save_best == expected


def test_an_iteration_based_run_without_evaluation() -> None:
    cfg = Config(dict(model=dict(), train_cfg=dict(type='SandwichIterTrainLoop', max_iters=9, sample_subnet_num=2),
                      custom_imports='mine'))
    cfg.custom_imports = dict(imports='mine')
    plain = plain_run_config(cfg, MODEL)
    assert plain.train_cfg == dict(type='IterBasedTrainLoop', max_iters=9)
    assert plain.custom_imports == dict(imports=['mine', 'mmbignas'])
    assert 'val_cfg' not in plain and 'test_cfg' not in plain
