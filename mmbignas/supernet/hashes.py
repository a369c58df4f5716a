"""Hashes of a model's weights and of its space, see :mod:`mmbignas.utils.identity`."""
from __future__ import annotations

import hashlib

import torch
from torch import nn

from mmbignas.space import Genome, SearchSpace
from mmbignas.utils.identity import config_hash


def model_hash(model: nn.Module) -> str:
    """Hash of a model's weights and statistics, and of buffers that no checkpoint has, such as pixel means."""
    digest = hashlib.sha256()
    for name, value in sorted({**dict(model.named_buffers()), **model.state_dict()}.items()):
        digest.update(f'{name} {tuple(value.shape)} {value.dtype}'.encode())
        digest.update(value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def space_hash(space: SearchSpace) -> str:
    """Hash of a space: which subnets it has under which numbers."""
    genes = [str((gene.module, gene.element, gene.stage, gene.block, gene.choices)) for gene in Genome(space).genes]
    return config_hash([genes, str(space.size), space.image_sizes, space.min().to_dict(), space.max().to_dict()])
