"""The config that is written for a family: what MMEngine reads from it."""
from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from mmengine.config import Config
from torch import nn

from mmbignas import ConfigError
from mmbignas.elastic.family import merged, remedies, stock_name, unloaded
from mmbignas.elastic.recipe import literal, recipe

COST = SimpleNamespace(macs=1)


def written(tmp_path: Path, base: str, of: str, **options: Any) -> Config:
    """What MMEngine makes of the text that is written for a config of a package."""
    cfg = Config.fromfile(Config._get_cfg_path(base, '')[0])
    family: Any = SimpleNamespace(of=of, settings=dict(width=dict(ratios=[0.5, 1.0], divisor=8), depth=None,
                                                       share='stage'), overrides={}, smallest=COST)
    text = recipe(family, cfg, base, 'family.plan.json', 'a.pth', [640, 640], **options)
    (tmp_path / 'family.py').write_text(text)
    assert all(len(line) <= 120 for line in text.splitlines() if "'" not in line)
    return Config.fromfile(str(tmp_path / 'family.py'))


def test_rtmdet(tmp_path: Path) -> None:
    cfg = written(tmp_path, 'mmdet::rtmdet/rtmdet_tiny_8xb32-300e_coco.py', 'mmdet.RTMDet', epochs=20)
    assert cfg.model.type == 'mmbignas.Elastic' and cfg.model.of == 'mmdet.RTMDet' and 'depth' not in cfg.model
    assert cfg.model.plan == str(tmp_path / 'family.plan.json')
    assert cfg.train_cfg.type == 'mmbignas.SandwichTrainLoop'
    assert 'dynamic_intervals' not in cfg.train_cfg and cfg.train_cfg.max_epochs == 20
    assert cfg.optim_wrapper.optimizer.lr == 0.004  # AdamW's step does not grow with the gradient
    assert cfg.optim_wrapper.paramwise_cfg.bypass_duplicate is True
    assert [schedule.type for schedule in cfg.param_scheduler] == ['LinearLR', 'CosineAnnealingLR']
    assert cfg.param_scheduler[1].T_max == cfg.param_scheduler[1].end == 20
    ema, switch, calibration = cfg.custom_hooks
    assert (ema.type, ema.priority) == ('EMAHook', 49)
    assert switch.switch_epoch == 19 and len(switch.switch_pipeline) == 8  # 280 of 300
    assert calibration.type == 'mmbignas.BNCalibrationHook'
    assert cfg.default_hooks.checkpoint.interval == 5
    assert cfg.test_cfg == dict(type='mmbignas.EvaluateSubnetLoop', subnets=['max', 'middle', 'min'],
                                image_size=[640, 640])


def test_a_classifier_with_sgd(tmp_path: Path) -> None:
    cfg = written(tmp_path, 'mmpretrain::resnet/resnet50_8xb32_in1k.py', 'mmpretrain.ImageClassifier')
    assert cfg.optim_wrapper.optimizer.lr == pytest.approx(0.1 / 4)
    assert cfg.optim_wrapper.clip_grad.max_norm > 0
    assert cfg.train_cfg.max_epochs == 16 and 'by_epoch' not in cfg.train_cfg
    assert cfg.val_cfg.type == 'mmbignas.SubnetValLoop'
    assert isinstance(cfg.param_scheduler, list)
    assert cfg.auto_scale_lr.base_batch_size == 256


def test_a_training_by_iteration(tmp_path: Path) -> None:
    base = tmp_path / 'base.py'
    base.write_text("model = dict(type='X', init_cfg=dict(type='Pretrained'))\n"
                    "train_cfg = dict(type='IterBasedTrainLoop', max_iters=9000, val_interval=3000)\n"
                    "optim_wrapper = dict(optimizer=dict(type='Adam', lr=1e-3), clip_grad=dict(max_norm=1))\n"
                    "val_cfg = dict(type='ValLoop')\ntest_cfg = None\n"
                    "default_hooks = dict(checkpoint=dict(type='CheckpointHook', save_best='auto'))\n")
    family: Any = SimpleNamespace(of='mmdet.X', settings=dict(depth='residual'), overrides={}, smallest=None)
    text = recipe(family, Config.fromfile(str(base)), 'base.py', 'p.json', 'a.pth', [64, 64])
    (tmp_path / 'family.py').write_text(text)
    cfg = Config.fromfile(str(tmp_path / 'family.py'))
    assert cfg.train_cfg.type == 'mmbignas.SandwichIterTrainLoop' and cfg.train_cfg.max_iters == 9000
    assert cfg.param_scheduler[1].by_epoch is False and cfg.param_scheduler[1].end == 9000
    assert cfg.optim_wrapper.clip_grad.max_norm == 1 and cfg.optim_wrapper.optimizer.lr == 1e-3
    assert cfg.test_cfg is None
    assert cfg.model.init_cfg == dict(type='mmbignas.SortedCheckpoint', checkpoint='a.pth', by='l1')
    assert cfg.default_hooks.checkpoint.save_best is None and cfg.default_hooks.checkpoint.by_epoch is False


@pytest.mark.parametrize('value', [
    dict(a=1, b=[1, 2], c=(3, )), [dict(type='A' * 50, values=list(range(20)))] * 3, {1: 'x' * 60, 2: 'y' * 60}, [],
    dict(name="it's", none=None, flag=True, number=1e-5), tuple('abcdefghij' * 12), {'not an identifier': 1}])
def test_literals_are_read_back(value: Any) -> None:
    text = literal(value)
    assert eval(text) == value
    assert all(len(line) <= 110 for line in text.splitlines())


def test_what_spoils_subnets_is_overridden() -> None:
    model = nn.Module()
    model.backbone = nn.Module()
    model.backbone.norm_eval, model.backbone.frozen_stages = True, 1
    model.backbone.norm_cfg = dict(type='BN', requires_grad=False)
    model.neck = nn.Module()
    model.neck.frozen_stages, model.neck.norm_eval = -1, False
    assert remedies(model) == dict(backbone=dict(norm_eval=False, frozen_stages=-1, norm_cfg=dict(requires_grad=True)))


def test_weights_of_parts_are_not_loaded_beside_the_checkpoint() -> None:
    config = dict(pretrained='a.pth', backbone=dict(init_cfg=dict(type='Pretrained', checkpoint='b.pth'), depth=18),
                  neck=dict(init_cfg=dict(type='Kaiming')))
    assert unloaded(config) == dict(pretrained=None, backbone=dict(init_cfg=None))
    assert merged(config, unloaded(config))['backbone'] == dict(init_cfg=None, depth=18)


def test_a_supernet_is_not_made_a_supernet() -> None:
    with pytest.raises(ConfigError, match="model.type must be a stock model.*got 'mmbignas.Elastic'"):
        stock_name(dict(type='mmbignas.Elastic'), 'mmdet')
    assert stock_name(dict(type='RTMDet'), 'mmdet') == 'mmdet.RTMDet'
    assert stock_name(dict(type='mmpretrain.ImageClassifier'), 'mmdet') == 'mmpretrain.ImageClassifier'
    assert stock_name(dict(type=nn.Conv2d), None) == 'torch.nn.modules.conv.Conv2d'
