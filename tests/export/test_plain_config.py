"""The config of a run with one subnet alone."""
from __future__ import annotations

import copy
import inspect
from pathlib import Path
from typing import Any

import pytest
from mmengine.config import Config
from mmengine.dataset import DefaultSampler, default_collate
from mmengine.utils import get_object_from_string

from mmbignas.distill import DistillHook
from mmbignas.export.plain_config import plain_run_config
from mmbignas.models import BigResNet
from mmbignas.registry import HOOKS
from mmbignas.train import RegularizeLargestHook

SANDWICH_POINTS = {'before_subnet_forward', 'after_subnet_forward', 'after_subnet_backward', 'before_sandwich_step',
                   'before_subnet_eval', 'after_subnet_eval'}
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
        model=MODEL, train_dataloader=dict(batch_size=8),
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


def test_metrics_that_are_watched() -> None:
    """Several subnets' metrics become one, in every place where a metric is watched."""
    cfg = Config(run(
        default_hooks=dict(checkpoint=dict(save_best=['max_calib/coco/bbox_mAP', 'min_calib/coco/bbox_mAP'])),
        custom_hooks=[dict(type='EarlyStoppingHook', monitor='max_calib/coco/bbox_mAP')],
        param_scheduler=[dict(type='LinearLR'), dict(type='ReduceOnPlateauLR', monitor='min/coco/bbox_mAP')]))
    plain = plain_run_config(cfg, MODEL)
    assert plain.default_hooks.checkpoint.save_best == ['coco/bbox_mAP']
    assert plain.custom_hooks[0].monitor == plain.param_scheduler[1].monitor == 'coco/bbox_mAP'
    assert cfg.custom_hooks[0].monitor == 'max_calib/coco/bbox_mAP'
    one = plain_run_config(Config(run(param_scheduler=dict(type='ReduceOnPlateauLR', monitor='min/x/y'))), MODEL)
    assert one.param_scheduler.monitor == 'x/y'


def test_checkpoints_to_start_from_are_left_out() -> None:
    pretrained, normal = dict(type='Pretrained', checkpoint='x.pth'), dict(type='Normal', layer='Conv2d', std=0.1)
    model = dict(type='RetinaNet', init_cfg=dict(type='mmbignas.OverlapCheckpoint', checkpoint='x.pth'),
                 backbone=dict(type='X', init_cfg=pretrained), neck=dict(type='X', init_cfg=[normal, pretrained]),
                 heads=[dict(type='X', init_cfg=normal)])
    plain = plain_run_config(Config(run()), model).model
    assert (plain.init_cfg, plain.backbone.init_cfg) == (None, None)
    assert plain.neck.init_cfg == [normal] and plain.heads[0].init_cfg == normal
    assert 'init_cfg' not in plain_run_config(Config(run()), MODEL).model


def test_classes_become_names(tmp_path: Path) -> None:
    """So that the config of pure Python can be written to a file and read from it."""
    cfg = Config(run(train_dataloader=dict(sampler=dict(type=DefaultSampler), collate_fn=dict(type=default_collate)),
                     default_scope=None))
    plain_run_config(cfg, dict(MODEL, backbone=dict(type=BigResNet))).dump(str(tmp_path / 'x.py'))
    read = Config.fromfile(str(tmp_path / 'x.py'))
    for kind, expected in ((read.train_dataloader.sampler.type, DefaultSampler), (read.model.backbone.type, BigResNet),
                           (read.train_dataloader.collate_fn.type, default_collate)):
        assert get_object_from_string(kind) is expected


def sandwich_hooks() -> list[type]:
    """The hooks of the package that say that they need the loops of a supernet."""
    return [kind for kind in HOOKS.module_dict.values() if getattr(kind, 'needs_sandwich', False)]


def test_each_hook_of_supernets_says_so() -> None:
    """What has a method that only their loops call, or asks for their rule, fails or does nothing in others."""
    HOOKS.import_from_location()
    for kind in HOOKS.module_dict.values():
        own = {name for base in kind.__mro__ for name in vars(base)} & SANDWICH_POINTS
        asks = 'sandwich_rule(' in inspect.getsource(kind)
        assert bool(own or asks) == (kind in sandwich_hooks()), kind
    assert len(sandwich_hooks()) >= 6


def test_hooks_of_supernets_are_left_out() -> None:
    class OwnHook(RegularizeLargestHook):
        """Somebody's own, derived from one of them."""

    hooks = [dict(type=f'mmbignas.{kind.__name__}') for kind in sandwich_hooks()]
    hooks += [dict(type=kind) for kind in (*sandwich_hooks(), OwnHook)]
    kept = [dict(type='mmbignas.ResumeHook'), dict(type='EMAHook'), dict(type='not.Installed')]
    plain = plain_run_config(Config(run(custom_hooks=hooks[:4] + kept + hooks[4:])), MODEL)
    assert plain.custom_hooks == kept
