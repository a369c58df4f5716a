"""The data sets within wrappers: Concat, Repeat, ClassBalanced, KFold, MultiImageMix and others like them."""
from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.registry import DATASETS


def built_leaves(dataset: Any, key: str) -> Iterator[tuple[str, Any]]:
    """The data sets that have no other within, with their places in the config.

    Args:
        dataset: a data set, or wrappers around some: objects with ``dataset`` or ``datasets``.
        key: its place, e.g. ``train_dataloader.dataset``.
    """
    for place, own in built_levels(dataset, key):
        if not {'dataset', 'datasets'} & {*getattr(own, '__dict__', ())}:
            yield place, own


def built_levels(dataset: Any, key: str) -> Iterator[tuple[str, Any]]:
    """As :func:`built_leaves`, with the wrappers, each before what is in it."""
    yield key, dataset
    own = getattr(dataset, '__dict__', {})  # not getattr: wrappers of this package pass the names of what they wrap on
    if 'dataset' in own:
        # Those that this package puts around a data set are not in the config.
        inner = key if type(dataset).__module__.startswith('mmbignas.') else f'{key}.dataset'
        yield from built_levels(own['dataset'], inner)
    elif isinstance(own.get('datasets'), (list, tuple)):
        for index, inner in enumerate(own['datasets']):
            yield from built_levels(inner, f'{key}.datasets[{index}]')


def config_leaves(cfg: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """The same of the config of a data set; anything that is no config is passed over."""
    for place, own in config_levels(cfg, key):
        if 'dataset' not in own and 'datasets' not in own:
            yield place, own


def config_levels(cfg: Any, key: str) -> Iterator[tuple[str, Mapping[str, Any]]]:
    """As :func:`config_leaves`, with the wrappers, each before what is in it."""
    if not isinstance(cfg, Mapping):
        return
    yield key, cfg
    yield from config_levels(cfg.get('dataset'), f'{key}.dataset')
    for index, inner in enumerate(cfg.get('datasets') or ()):
        yield from config_levels(inner, f'{key}.datasets[{index}]')


def config_classes(leaf: Mapping[str, Any]) -> list[str] | None:
    """The names of classes that the config of a data set gives, as the data set reads them, e.g. from a file.

    Args:
        leaf: the config of a data set that is no wrapper.

    Returns:
        list: the names; ``None`` where the config gives none, or names a file that is not here.
    """
    classes = leaf.get('classes') or (leaf.get('metainfo') or {}).get('classes')
    kind: Any = leaf.get('type')
    if isinstance(classes, str) and isinstance(kind, str):
        with DATASETS.switch_scope_and_registry(None) as registry:
            kind = registry.get(kind)
    if isinstance(classes, str) and hasattr(kind, '_load_metainfo'):
        classes = kind._load_metainfo(dict(classes=classes)).get('classes')
    return [str(name) for name in classes] if isinstance(classes, (list, tuple)) else None


def source_of(leaf: Any) -> str:
    """Where a data set's annotations come from: a file, else a folder; '' for one that does not tell."""
    ann_file, prefix = getattr(leaf, 'ann_file', None), getattr(leaf, 'data_prefix', None)
    if isinstance(ann_file, str) and ann_file:
        return ann_file
    folders = list(prefix.values()) if isinstance(prefix, Mapping) else [prefix]
    return next((folder for folder in folders if isinstance(folder, str)), '')
