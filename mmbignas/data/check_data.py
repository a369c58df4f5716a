"""Checks of data sets and their files that come before anything slow."""
from __future__ import annotations

import os.path as osp
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.registry import init_default_scope

from mmbignas.data.leaves import config_classes, config_leaves, config_levels
from mmbignas.errors import ConfigError
from mmbignas.supernet import Checkpoint
from mmbignas.utils.configs import type_name
from mmbignas.utils.rules import must_be


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
    for place, own in config_levels(dataset_cfg, key):
        _check_files_of(own, place)


def _check_files_of(dataset_cfg: Mapping[str, Any], key: str) -> None:
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
            raise ConfigError(f'{key}.{name}: {full} does not exist (paths are relative to data_root {root!r}, or '
                              'absolute)')


def check_files(cfg: Mapping[str, Any], stages: Sequence[str]) -> None:
    """Make sure that the files that a run needs are there: those of its data sets, and what its model starts from.

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
            raise ConfigError(f'{key}.checkpoint: {path} does not exist; to start without it, set {key} to None '
                              '(--cfg-options)')
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
    if cfg.get('default_scope'):
        init_default_scope(cfg['default_scope'])  # for data sets that read names from files
    for stage in ('train', 'val', 'test'):
        dataset = (cfg.get(f'{stage}_dataloader') or {}).get('dataset')
        for place, leaf in config_leaves(dataset, f'{stage}_dataloader.dataset'):
            classes = config_classes(leaf)
            if classes and checkpoint.classes and classes != checkpoint.classes:
                raise must_be(f'{place}.metainfo.classes', f'{tuple(checkpoint.classes)}, as in {checkpoint.path}',
                              tuple(classes))
