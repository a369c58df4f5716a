"""Checks of a config that come before anything slow."""
from __future__ import annotations

import os.path as osp
from collections.abc import Mapping
from typing import Any

from torch import nn

from mmbignas.errors import ConfigError
from mmbignas.supernet import Supernet, probe


def type_name(cfg: Mapping[str, Any]) -> str:
    """The class name in a config whose ``type`` is a name, with or without scope, or a class; '' without one."""
    kind = cfg.get('type', '')
    return str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1]


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


def check_widths(supernet: Supernet) -> None:
    """Make sure that every module takes what the smallest subnet gives it.

    A plain neck behind a searchable backbone, for one, fits the largest subnet alone.

    Args:
        supernet: the model, which is left as it was.

    Raises:
        ConfigError: naming the first layer that does not fit.
    """
    entered: list[str] = []
    handles = [module.register_forward_pre_hook(lambda *_, path=path: entered.append(path))
               for path, module in supernet.model.named_modules() if not isinstance(module, nn.ModuleList)]
    try:
        probe(supernet, supernet.space.min())
    except (RuntimeError, ValueError) as error:
        raise ConfigError(f'model: {entered[-1] if entered else "?"} does not take the smallest subnet ({error}); a '
                          'module that gets tensors of changing width has to be dynamic: give one of its elements as '
                          'dict(space=dict(min=[x], max=[x])) in place of [x]') from error
    except TypeError:
        return  # mode 'tensor' of this model needs more than an image, as that of a two-stage detector does
    finally:
        for handle in handles:
            handle.remove()
