"""Hashes of what the figures of an evaluation depend on, so that none are mixed up."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path, PurePath
from typing import Any

import torch
from torch import nn

from mmbignas.space import Genome, SearchSpace
from mmbignas.supernet import file_hash

# Where files lie says nothing about what is in them.
PLACES = ('data_root', 'data_prefix', 'ann_file', 'img_path', 'backend_args', 'outfile_prefix', 'work_dir')


def model_hash(model: nn.Module) -> str:
    """Hash of a model's weights and statistics, by name."""
    digest = hashlib.sha256()
    for name, value in sorted(model.state_dict().items()):
        digest.update(f'{name} {tuple(value.shape)} {value.dtype}'.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def space_hash(space: SearchSpace) -> str:
    """Hash of a space: which subnets it has under which numbers."""
    genes = [str((gene.module, gene.element, gene.stage, gene.block, gene.choices)) for gene in Genome(space).genes]
    return config_hash([genes, str(space.size), space.image_sizes, space.min().to_dict(), space.max().to_dict()])


def dataset_hash(dataset: Any) -> str:
    """Hash of a data set: its length, classes and, as far as it tells them, the names and annotations of its images."""
    infos = range(len(dataset)) if hasattr(dataset, 'get_data_info') else ()
    digest = hashlib.sha256(config_hash([len(dataset), getattr(dataset, 'metainfo', None)]).encode())
    for index in infos:
        info = dataset.get_data_info(index)
        names = [(key, PurePath(str(value)).name) for key, value in info.items() if key in PLACES]
        digest.update(config_hash([names, info]).encode())
    return digest.hexdigest()


def annotation_hashes(config: Any) -> list[str]:
    """Hashes of the annotation files that a config names, in their order; the name of one that is not here."""
    hashes: list[str] = []
    if isinstance(config, Mapping):
        path = config.get('ann_file')
        if isinstance(path, str) and path:
            full = Path(str(config.get('data_root') or ''), path)
            hashes.append(file_hash(full) if full.is_file() else full.name)
        config = list(config.values())
    if isinstance(config, (list, tuple)):
        for value in config:
            hashes += annotation_hashes(value)
    return hashes


def config_hash(config: Any) -> str:
    """Hash of a config or other nested data, without the places of files; objects count by their class."""
    text = json.dumps(_plain(config), sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(own) for name, own in value.items() if name not in PLACES}
    if isinstance(value, (list, tuple)):
        return [_plain(own) for own in value]
    if value is None or isinstance(value, (str, int, float)):
        return value
    if hasattr(value, 'tolist'):
        return value.tolist()
    return getattr(value, '__qualname__', type(value).__qualname__)
