"""The config of a family's training, made from that of the network's own."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config

from mmbignas.elastic.family import Family
from mmbignas.utils.configs import type_name

EPOCHS = 16
PASSES = ('max', 'min', 'random', 'random')
CALIBRATION_IMAGES = 2048
WARM_UP = 500  # iterations; one epoch where a training is counted in epochs
MAX_NORM = 35
LINE = 110
# Optimizers whose step grows with the gradient, which is the sum over the passes.
LINEAR = ('SGD', 'ASGD', 'LARS')


def recipe(family: Family, cfg: Config, base: str, plan_file: str, checkpoint: str | None, image_size: Sequence[int],
           epochs: int = EPOCHS) -> str:
    """The text of a config that trains, evaluates and searches a family.

    It starts from the network's checkpoint, at the learning rate that the network was trained with.

    Args:
        family: the family.
        cfg: config of the network's own training.
        base: where the text finds that config, for ``_base_``.
        plan_file: name of the plan's file, in the folder of the text.
        checkpoint: of the network; ``None`` where there is none.
        image_size: height and width in pixels, for the costs of the evaluation.
        epochs: length of the training, where the network's own was counted in epochs.
    """
    by_iter, length = _length(cfg, epochs)
    unit = 'max_iters' if by_iter else 'max_epochs'
    interval = max(length // 4, 1)
    parts: list[tuple[str, Mapping[str, Any]]] = [
        ('', dict(_base_=[base], custom_imports=_imports(cfg))),
        (f'The stock {family.of}, and what may get narrower or be left out in it.',
         dict(model=_model(family, cfg, plan_file, checkpoint))),
        ('Each iteration trains the largest, the smallest and two random subnets; their gradients add up.',
         dict(train_cfg=dict(_instead_of(cfg, 'train_cfg'),
                             type=f'mmbignas.Sandwich{"Iter" if by_iter else ""}TrainLoop', **{unit: length},
                             val_interval=interval, sample_subnet_num=len(PASSES), sample_strategy=list(PASSES)))),
        *_optimizer(cfg),
        ('A warm-up, then a cosine.', dict(param_scheduler=_schedule(by_iter, length))),
        *_evaluation(family, cfg, image_size),
        ("BN statistics are calibrated for each subnet before it is evaluated.",
         dict(custom_hooks=_hooks(cfg, length))),
        ('', dict(default_hooks=dict(checkpoint=_checkpoint_hook(cfg, by_iter, interval)))),
    ]
    head = f'# The family of {base}, written by tools/make_supernet.py.\n'
    return head + '\n'.join((f'# {note}\n' if note else '') + ''.join(
        f'{name} = {literal(value)}\n' for name, value in content.items()) for note, content in parts)


def _length(cfg: Config, epochs: int) -> tuple[bool, int]:
    """Whether a training is counted in iterations, and how long that of the family is."""
    train = cfg.get('train_cfg') or {}
    by_iter = type_name(train) == 'IterBasedTrainLoop' or train.get('by_epoch') is False
    return by_iter, int(train['max_iters']) if by_iter else epochs


def _imports(cfg: Config) -> dict[str, Any]:
    own = dict(cfg.get('custom_imports') or {})
    names = own.get('imports') or []
    names = [names] if isinstance(names, str) else list(names)
    return dict(own, imports=[*names, *(['mmbignas'] if 'mmbignas' not in names else [])])


def _instead_of(base: Mapping[str, Any], key: str) -> dict[str, Any]:
    """What a dict has to begin with for it to replace the base's, which MMEngine leaves in where there is none."""
    return dict(_delete_=True) if key in base else {}


def _model(family: Family, cfg: Config, plan_file: str, checkpoint: str | None) -> dict[str, Any]:
    model = dict(type='mmbignas.Elastic', of=family.of, **family.settings)
    if model['depth'] is None:
        del model['depth']
    model.update(plan=f'{{{{ fileDirname }}}}/{plan_file}', **family.overrides)
    if checkpoint is not None:
        model['init_cfg'] = dict(_instead_of(cfg.get('model') or {}, 'init_cfg'), type='mmbignas.SortedCheckpoint',
                                 checkpoint=checkpoint, by='l1')
    return model


def _optimizer(cfg: Config) -> list[tuple[str, Mapping[str, Any]]]:
    """The optimizer's learning rate and the clipping of gradients, where these have to change."""
    wrapper = cfg.get('optim_wrapper') or {}
    optimizer = wrapper.get('optimizer') or {}
    own: dict[str, Any] = {}
    note = "The network's own learning rate, since the weights are those of its checkpoint."
    if type_name(optimizer) in LINEAR and 'lr' in optimizer:
        own['optimizer'] = dict(lr=optimizer['lr'] / len(PASSES))
        note = (f'The learning rate was {optimizer["lr"]:g}; {type_name(optimizer)} takes the sum of {len(PASSES)} '
                'gradients for the gradient.')
    if not wrapper.get('clip_grad'):
        own['clip_grad'] = dict(_instead_of(wrapper, 'clip_grad'), max_norm=MAX_NORM, norm_type=2)
    return [(note, dict(optim_wrapper=own))] if own else []


def _schedule(by_iter: bool, length: int) -> list[dict[str, Any]]:
    cosine = dict(type='CosineAnnealingLR', begin=0, end=length, T_max=length, eta_min_ratio=0.05,
                  by_epoch=not by_iter)
    if by_iter:
        return [dict(type='LinearLR', start_factor=0.01, by_epoch=False, begin=0, end=WARM_UP), cosine]
    return [dict(type='LinearLR', start_factor=0.01, begin=0, end=1, convert_to_iter_based=True),
            dict(cosine, convert_to_iter_based=True)]


def _evaluation(family: Family, cfg: Config, image_size: Sequence[int]) -> list[tuple[str, Mapping[str, Any]]]:
    content: dict[str, Any] = {}
    if cfg.get('val_cfg') is not None:
        content['val_cfg'] = dict(_instead_of(cfg, 'val_cfg'), type='mmbignas.SubnetValLoop', subnets=['max', 'min'],
                                  calib_bn=True)
    if cfg.get('test_cfg') is not None and cfg.get('test_dataloader') is not None:
        subnets = ['max', 'middle', 'min']
        content['test_cfg'] = dict(_instead_of(cfg, 'test_cfg'), type='mmbignas.SubnetValLoop', subnets=subnets,
                                   calib_bn=True)
        if family.smallest is not None:
            content['test_cfg'] = dict(_instead_of(cfg, 'test_cfg'), type='mmbignas.EvaluateSubnetLoop',
                                       subnets=subnets, image_size=list(image_size))
    return [('What is evaluated: the metrics of each subnet have its name in front.', content)] if content else []


def _hooks(cfg: Config, length: int) -> list[dict[str, Any]]:
    """The network's own hooks, those that end with a stage of its training at the same share of the family's."""
    train = cfg.get('train_cfg') or {}
    before = train.get('max_epochs') or train.get('max_iters') or length
    hooks = []
    for hook in cfg.to_dict().get('custom_hooks') or ():
        own = dict(hook)
        for name in ('switch_epoch', 'num_last_epochs'):
            if isinstance(own.get(name), int):
                own[name] = max(round(own[name] * length / before), 1)
        hooks.append(own)
    return [*hooks, dict(type='mmbignas.BNCalibrationHook', num_images=CALIBRATION_IMAGES)]


def _checkpoint_hook(cfg: Config, by_iter: bool, interval: int) -> dict[str, Any]:
    hook = dict((cfg.get('default_hooks') or {}).get('checkpoint') or {})
    own: dict[str, Any] = dict(type='CheckpointHook', by_epoch=not by_iter, interval=interval, max_keep_ckpts=2)
    if hook.get('save_best') is not None:  # a metric of the network alone
        own['save_best'] = None
    return own


def literal(value: Any, indent: int = 0, room: int = 24) -> str:
    """A value as it stands in a config, with dicts as calls of ``dict``, on several lines where it is long.

    Args:
        value: plain data.
        indent: spaces that its further lines begin with.
        room: characters that stand before it in its first line.
    """
    text = _flat(value)
    if len(text) + room <= LINE or not value or not isinstance(value, (Mapping, list, tuple)):
        return text
    inner = ' ' * (indent + 4)
    if isinstance(value, Mapping) and all(isinstance(name, str) and name.isidentifier() for name in value):
        lines = [f'{inner}{name}={literal(own, indent + 4, indent + 6 + len(name))},\n' for name, own in value.items()]
        return f'dict(\n{"".join(lines)}{" " * indent})'
    if isinstance(value, Mapping):
        lines = [f'{inner}{name!r}: {literal(own, indent + 4, indent + 8 + len(str(name)))},\n'
                 for name, own in value.items()]
        return f'{{\n{"".join(lines)}{" " * indent}}}'
    lines = [f'{inner}{literal(own, indent + 4, indent + 6)},\n' for own in value]
    first, last = '[]' if isinstance(value, list) else '()'
    return f'{first}\n{"".join(lines)}{" " * indent}{last}'


def _flat(value: Any) -> str:
    """A value on one line."""
    if isinstance(value, Mapping):
        if all(isinstance(name, str) and name.isidentifier() for name in value):
            return f'dict({", ".join(f"{name}={_flat(own)}" for name, own in value.items())})'
        return f'{{{", ".join(f"{name!r}: {_flat(own)}" for name, own in value.items())}}}'
    if isinstance(value, tuple):
        return f'({", ".join(map(_flat, value))}{"," * (len(value) == 1)})'
    return f'[{", ".join(map(_flat, value))}]' if isinstance(value, list) else repr(value)
