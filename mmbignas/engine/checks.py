"""Checks of a config that come before anything slow."""
from __future__ import annotations

import os.path as osp
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any

from torch import nn

from mmbignas.errors import ConfigError
from mmbignas.ops import DynamicLayer
from mmbignas.supernet import Checkpoint, Supernet, probe


def type_name(cfg: Mapping[str, Any]) -> str:
    """The class name in a config whose ``type`` is a name, with or without scope, or a class; '' without one."""
    kind = cfg.get('type', '')
    return str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1]


@contextmanager
def errors_below(key: str) -> Iterator[None]:
    """Put the place of a dict in the config before the keys that errors name."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f'{key}.{error}') from None


def check_count(count: Any, key: str, least: int = 1) -> int:
    """A number of things, if it is one.

    Args:
        count: what the config says.
        key: its place in the config.
        least: the smallest that is allowed.

    Raises:
        ConfigError: for anything but integers from ``least``.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise ConfigError(f'{key}: {count!r} is not allowed; allowed: integers from {least}')
    return count


def check_choice(value: Any, choices: Sequence[Any], key: str) -> Any:
    """One of several values, if it is.

    Args:
        value: what the config says.
        choices: what is allowed.
        key: its place in the config.

    Raises:
        ConfigError: for anything else, also where it is equal but of another type, as 1 and True are.
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ConfigError(f'{key}: {value!r} is not allowed; allowed: {", ".join(map(str, choices))}')
    return value


def check_metric_name(name: Any, key: str) -> str | None:
    """The name of a metric, or ``None``, if it is.

    Args:
        name: what the config says.
        key: its place in the config.

    Raises:
        ConfigError: for anything else.
    """
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"{key}: {name!r} is not allowed; allowed: the name of a metric, such as 'coco/bbox_mAP', or "
                          'None')
    return name


def check_dataset_files(dataset_cfg: Any, key: str) -> None:
    """Make sure that the files and folders a data set names are there.

    Looks at ``ann_file`` and ``data_prefix`` (relative to ``data_root``, as MMEngine's data sets take them), also
    inside wrappers. Paths with a scheme such as ``s3://``, and data sets with a file back end other than the local one,
    are left to their back end.

    Args:
        dataset_cfg: a data set's config; anything else is passed over.
        key: its place in the config, e.g. ``train_dataloader.dataset``.

    Raises:
        ConfigError: naming the key and the path that does not exist.
    """
    if not isinstance(dataset_cfg, Mapping):
        return
    check_dataset_files(dataset_cfg.get('dataset'), f'{key}.dataset')
    for index, inner in enumerate(dataset_cfg.get('datasets') or ()):
        check_dataset_files(inner, f'{key}.datasets[{index}]')
    if (dataset_cfg.get('backend_args') or {}).get('backend', 'local') != 'local':
        return
    root, prefix = dataset_cfg.get('data_root') or '', dataset_cfg.get('data_prefix') or {}
    named = {'ann_file': dataset_cfg.get('ann_file')}
    if isinstance(prefix, Mapping):
        named.update({f'data_prefix.{name}': path for name, path in prefix.items()})
    else:  # MMPretrain takes a string too
        named['data_prefix'] = prefix
    for name, path in named.items():
        if not isinstance(path, str) or not path and name == 'ann_file':
            continue
        full = osp.join(root, osp.expanduser(path))
        if full and '://' not in full and not osp.exists(osp.expanduser(full)):
            raise ConfigError(f'{key}.{name}: {full} does not exist; give an existing path, relative to data_root '
                              f'({root!r}) or absolute')


def check_files(cfg: Mapping[str, Any], stages: Sequence[str]) -> None:
    """Make sure that the files are there which a run needs: of its data sets, and what its model starts from.

    Args:
        cfg: config of the run.
        stages: ``train``, ``val`` or ``test``; those that the config has not are passed over.

    Raises:
        ConfigError: naming the key and the path that does not exist.
    """
    if 'train' in stages:
        _check_init_files(cfg.get('model'), 'model')
    for stage in stages:
        if cfg.get(f'{stage}_cfg') is not None and type_name(cfg[f'{stage}_cfg']) != 'SampleFlopsLoop':
            check_dataset_files((cfg.get(f'{stage}_dataloader') or {}).get('dataset'), f'{stage}_dataloader.dataset')
            check_dataset_files(cfg.get(f'{stage}_evaluator'), f'{stage}_evaluator')


def _check_init_files(cfg: Any, key: str) -> None:
    if isinstance(cfg, Mapping):
        path = cfg.get('checkpoint') if type_name(cfg) in ('SupernetCheckpoint', 'OverlapCheckpoint') else None
        if isinstance(path, str) and '://' not in path and not osp.isfile(path):
            raise ConfigError(f'{key}.checkpoint: {path} does not exist; give an existing checkpoint, or set {key} to '
                              'None (--cfg-options) to start without it')
        for name, value in cfg.items():
            _check_init_files(value, f'{key}.{name}')
    elif isinstance(cfg, (list, tuple)):
        for index, value in enumerate(cfg):
            _check_init_files(value, f'{key}[{index}]')


def check_classes(cfg: Mapping[str, Any], checkpoint: Checkpoint) -> None:
    """Make sure that the classes of a config's data are those that a checkpoint was trained for.

    Args:
        cfg: config of a run.
        checkpoint: a checkpoint, which may have no names of classes.

    Raises:
        ConfigError: when both name their classes, and differently.
    """
    for stage in ('train', 'val', 'test'):
        dataset = (cfg.get(f'{stage}_dataloader') or {}).get('dataset') or {}
        classes = (dataset.get('metainfo') or {}).get('classes')
        if classes and checkpoint.classes and list(classes) != checkpoint.classes:
            raise ConfigError(f'{stage}_dataloader.dataset.metainfo.classes: {", ".join(classes)} is not allowed with '
                              f'{checkpoint.path}; allowed: its classes, {", ".join(checkpoint.classes)}')


def check_num_classes(model: nn.Module, dataset: Any, key: str) -> None:
    """Make sure that a classifier's head has as many outputs as the data have classes.

    Args:
        model: a model, not a wrapper; without ``head.num_classes`` nothing is checked.
        dataset: a data set; without the names of its classes nothing is checked.
        key: its place in the config.

    Raises:
        ConfigError: naming both numbers.
    """
    count = getattr(getattr(model, 'head', None), 'num_classes', None)
    classes = (getattr(dataset, 'metainfo', None) or {}).get('classes')
    if isinstance(count, int) and classes and count != len(classes):
        names = ', '.join([*map(str, classes[:5]), '...'] if len(classes) > 5 else classes)
        raise ConfigError(f'model.head.num_classes: {count} is not allowed with {key}, which has {len(classes)} '
                          f'classes ({names}); allowed: {len(classes)}')


def check_widths(supernet: Supernet) -> None:
    """Make sure that every module takes what the smallest subnet gives it, and needs what the largest does.

    A plain neck behind a searchable backbone, for one, fits the largest subnet alone. A dynamic layer that is wider
    than anything it is given would never train the rest.

    Args:
        supernet: the model, which is left as it was.

    Raises:
        ConfigError: naming the first layer that does not fit.
    """
    extremes = dict(smallest=supernet.space.min(), largest=supernet.space.max())
    entered: dict[str, int] = {}  # path -> width of its input

    def enter(path: str, module: nn.Module, inputs: tuple) -> None:
        channels = -1 if isinstance(module, nn.Linear) else 1
        entered.pop(path, None)  # the last one is to stand last
        entered[path] = inputs[0].shape[channels] if isinstance(module, DynamicLayer) else 0

    handles = [module.register_forward_pre_hook(partial(enter, path))
               for path, module in supernet.model.named_modules() if not isinstance(module, nn.ModuleList)]
    try:
        for size in extremes:
            probe(supernet, extremes[size])
    except (RuntimeError, ValueError) as error:
        last = list(entered)[-1] if entered else '?'
        plain = type(getattr(supernet.model, 'head', None)).__name__ == 'LinearClsHead' and last.startswith('head')
        raise ConfigError(f'model: {last} does not take the {size} subnet ({error}); a module that gets tensors of '
                          'changing width has to be dynamic: give one of its elements as '
                          'dict(space=dict(min=[x], max=[x])) in place of [x]'
                          + ', or mmbignas.BigLinearClsHead' * plain) from error
    except TypeError:
        return  # mode 'tensor' of this model needs more than an image, as that of a two-stage detector does
    finally:
        for handle in handles:
            handle.remove()
    for path, given in entered.items():
        layer = supernet.model.get_submodule(path)
        full = getattr(layer, 'in_channels', getattr(layer, 'in_features', given))
        if given and given < full:
            raise ConfigError(f'model: {path} is built for an input of {full} channels, but the largest subnet gives '
                              f'it {given}; allowed: in_channels that are the greatest width of what comes before')
