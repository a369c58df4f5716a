"""The config of a run with one subnet alone, made from that of the supernet."""
from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config

from mmbignas.registry import HOOKS
from mmbignas.utils.configs import type_name

# Loops of supernets -> MMEngine's, and the arguments that both have.
TRAIN_LOOPS = dict(SandwichTrainLoop='EpochBasedTrainLoop', SandwichIterTrainLoop='IterBasedTrainLoop')
TRAIN_ARGUMENTS = ('max_epochs', 'max_iters', 'val_begin', 'val_interval', 'dynamic_intervals')
EVALUATION_LOOPS = ('SubnetValLoop', 'EvaluateSubnetLoop', 'SampleFlopsLoop', 'SampleAccuracyLoop', 'SubnetSearchLoop')
FILE_INITS = ('Pretrained', 'SupernetCheckpoint', 'OverlapCheckpoint', 'SortedCheckpoint')
PACKAGE = 'mmbignas'


def plain_run_config(cfg: Config, model_cfg: Mapping[str, Any], standalone: bool = False) -> Config:
    """The config of an ordinary run: MMEngine's loops in place of those for supernets, and none of their hooks.

    Metrics of subnets that something watches become those of the network. Weights that the supernet was to start from
    are left out. Data, optimizer, schedule and everything else stay. Classes, as in configs of pure Python, become
    their names; scopes that are the default one, as in bases of another package, go, since tools stumble over them.

    Args:
        cfg: config of the supernet's run; it is left as it is.
        model_cfg: config of the plain network.
        standalone: whether the network needs nothing of this package. Then its hooks are left out, and it is imported
            only where something else of the config needs it; see :func:`needs_package`.
    """
    plain = copy.deepcopy(cfg)
    plain.model = dict(model_cfg)
    plain.load_from, plain.resume = None, False
    for name in ('work_dir', 'launcher'):
        plain.pop(name, None)
    _plain_loops(plain)
    hooks = [hook for hook in plain.get('custom_hooks') or () if not needs_sandwich(hook)
             and not (standalone and needs_package(hook))]
    if hooks:
        plain.custom_hooks = hooks
    else:
        plain.pop('custom_hooks', None)
    content = _named(plain.to_dict(), plain.get('default_scope'))
    content['model'] = _without_files(content['model'])
    imports = dict(content.pop('custom_imports', None) or {})
    names = imports.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    if standalone and not needs_package(content):
        names = [name for name in names if name.split('.')[0] != PACKAGE]
    elif not any(name.split('.')[0] == PACKAGE for name in names):
        names.append(PACKAGE)
    if names:
        content['custom_imports'] = dict(imports, imports=names)
    return Config(content)


def needs_sandwich(hook: Mapping[str, Any]) -> bool:
    """Whether a hook says, by an attribute of this name, that it needs the loops of a supernet.

    Args:
        hook: its config.
    """
    kind = hook.get('type')
    return bool(getattr(HOOKS.get(kind) if isinstance(kind, str) else kind, 'needs_sandwich', False))


def needs_package(content: Any) -> bool:
    """Whether something in a config is of this package, by the names of types or by the types themselves.

    Args:
        content: a config, or a part of one; ``custom_imports`` does not count.
    """
    if isinstance(content, Mapping):
        kind = content.get('type')
        name = f'{kind.__module__}.' if callable(kind) else str(kind)
        return name.startswith(f'{PACKAGE}.') or any(
            needs_package(value) for key, value in content.items() if key != 'custom_imports')
    return isinstance(content, (list, tuple)) and any(map(needs_package, content))


def _plain_loops(cfg: Config) -> None:
    """Replace the loops, and what refers to the metrics of subnets."""
    train = cfg.get('train_cfg')
    if train and type_name(train) in TRAIN_LOOPS:
        kept = {name: train[name] for name in TRAIN_ARGUMENTS if name in train}
        cfg.train_cfg = dict(type=TRAIN_LOOPS[type_name(train)], **kept)
    if type_name(cfg.get('val_cfg') or {}) in EVALUATION_LOOPS:
        schedulers = cfg.get('param_scheduler') or []
        watching = [*(cfg.get('default_hooks') or {}).values(), *(cfg.get('custom_hooks') or ()),
                    *([schedulers] if isinstance(schedulers, Mapping) else schedulers)]
        for own in watching:
            for key in ('save_best', 'monitor'):
                if isinstance(own, Mapping) and own.get(key) is not None:
                    own[key] = _plain_metric(own[key])  # type: ignore[index]
    for key, loop in dict(val_cfg='ValLoop', test_cfg='TestLoop').items():
        own = cfg.get(key)
        if own and type_name(own) in EVALUATION_LOOPS:
            cfg[key] = dict(type=loop, **({'fp16': own['fp16']} if 'fp16' in own else {}))


def _plain_metric(metric: Any) -> Any:
    """``<subnet>/coco/bbox_mAP`` -> ``coco/bbox_mAP``; of a list, each once."""
    if isinstance(metric, str):
        return metric.split('/', 1)[-1]
    return list(dict.fromkeys(name.split('/', 1)[-1] for name in metric))


def _without_files(model_cfg: Any) -> Any:
    """A model's config without the checkpoints that its parts were to start from."""
    if isinstance(model_cfg, (list, tuple)):
        return type(model_cfg)(_without_files(item) for item in model_cfg)
    if not isinstance(model_cfg, Mapping):
        return model_cfg
    result = {name: _without_files(value) for name, value in model_cfg.items()}
    init = result.get('init_cfg')
    if init:
        kept = [own for own in ([init] if isinstance(init, Mapping) else init) if type_name(own) not in FILE_INITS]
        result['init_cfg'] = (kept[0] if isinstance(init, Mapping) else kept) if kept else None
    return result


def _named(content: Any, scope: str | None) -> Any:
    """A config with the names of classes and functions in place of these, and without the scope that is the default."""
    if isinstance(content, Mapping):
        return {name: _named(value, scope) for name, value in content.items()
                if name != '_scope_' or value != scope}
    if isinstance(content, (list, tuple)):
        return type(content)(_named(item, scope) for item in content)
    return f'{content.__module__}.{content.__qualname__}' if callable(content) else content
