"""The dataloader of many evaluations, of all images or of a fixed choice."""
from __future__ import annotations

import random
from collections.abc import Mapping
from typing import Any

from mmengine.registry import DATASETS

from mmbignas.errors import ConfigError


def with_chosen_images(dataloader: Any, count: int | None, seed: int, key: str) -> tuple[Any, list[int] | None]:
    """A dataloader for many evaluations: with the chosen images, and with workers that live as long as it.

    Args:
        dataloader: a dataloader, or its config.
        count: how many images, at most those that there are; ``None`` for all.
        seed: of the choice, which depends on nothing else.
        key: place of the count in the config, for messages.

    Returns:
        tuple: the config of the dataloader, or the dataloader as it is; the indices of the chosen images, ascending,
        ``None`` for all.

    Raises:
        ConfigError: for a choice from a dataloader that is complete, or a data set that has no ``get_subset``.
    """
    if not isinstance(dataloader, Mapping):
        if count is not None:
            raise ConfigError(f'{key}: {count} needs the config of a dataloader; allowed with a dataloader: None')
        return dataloader, None
    prepared = dict(dataloader)
    if prepared.get('num_workers', 0) > 0:
        prepared['persistent_workers'] = True
    if count is None:
        return prepared, None
    dataset = prepared['dataset']
    dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
    if not hasattr(dataset, 'get_subset'):
        raise ConfigError(f'{key}: {count} is not allowed with {type(dataset).__name__}, which has no get_subset; '
                          'allowed: None')
    indices = sorted(random.Random(seed).sample(range(len(dataset)), min(count, len(dataset))))
    return {**prepared, 'dataset': dataset.get_subset(indices)}, indices
