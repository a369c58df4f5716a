"""The config of a run with one subnet alone, made from that of the supernet."""
from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmbignas.engine.checks import type_name

# Loops of supernets -> MMEngine's, and the arguments that both have.
TRAIN_LOOPS = dict(SandwichTrainLoop='EpochBasedTrainLoop', SandwichIterTrainLoop='IterBasedTrainLoop')
TRAIN_ARGUMENTS = ('max_epochs', 'max_iters', 'val_begin', 'val_interval', 'dynamic_intervals')
EVALUATION_LOOPS = ('SubnetValLoop', 'EvaluateSubnetLoop', 'SampleFlopsLoop')
SUPERNET_HOOKS = ('BNCalibrationHook', 'DistillHook', 'RegularizeLargestHook')


def plain_run_config(cfg: Config, model_cfg: Mapping[str, Any]) -> Config:
    """The config of an ordinary run: MMEngine's loops in place of those for supernets, and none of their hooks.

    Data, optimizer, schedule and everything else stay.

    Args:
        cfg: config of the supernet's run; it is left as it is.
        model_cfg: config of the plain network.
    """
    plain = copy.deepcopy(cfg)
    plain.model = dict(model_cfg, init_cfg=None)
    plain.load_from, plain.resume = None, False
    for name in ('work_dir', 'launcher'):
        plain.pop(name, None)
    _plain_loops(plain)
    hooks = [hook for hook in plain.get('custom_hooks') or () if type_name(hook) not in SUPERNET_HOOKS]
    if hooks:
        plain.custom_hooks = hooks
    else:
        plain.pop('custom_hooks', None)
    imports = dict(plain.get('custom_imports') or {})
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if not any(name.split('.')[0] == 'mmbignas' for name in names):
        plain.custom_imports = dict(imports, imports=[*names, 'mmbignas'])
    return plain


def _plain_loops(cfg: Config) -> None:
    """Replace the loops, and what refers to the metrics of subnets."""
    train = cfg.get('train_cfg')
    if train and type_name(train) in TRAIN_LOOPS:
        kept = {name: train[name] for name in TRAIN_ARGUMENTS if name in train}
        cfg.train_cfg = dict(type=TRAIN_LOOPS[type_name(train)], **kept)
    checkpoint = (cfg.get('default_hooks') or {}).get('checkpoint') or {}
    best = checkpoint.get('save_best')
    if best is not None and type_name(cfg.get('val_cfg') or {}) in EVALUATION_LOOPS:
        names = [name.split('/', 1)[-1] for name in ([best] if isinstance(best, str) else best)]
        checkpoint['save_best'] = names[0] if isinstance(best, str) else names  # <subnet>/coco/bbox_mAP
    for key, loop in dict(val_cfg='ValLoop', test_cfg='TestLoop').items():
        own = cfg.get(key)
        if own and type_name(own) in EVALUATION_LOOPS:
            cfg[key] = dict(type=loop, **({'fp16': own['fp16']} if 'fp16' in own else {}))
