"""How many images the batches of a dataloader have."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader, IterableDataset

from mmbignas.data.leaves import built_leaves, source_of
from mmbignas.errors import ConfigError
from mmbignas.utils.rules import must_be

ENDLESS = ('Infinite', 'MultiSource')  # in the names of samplers that never come to an end


def batch_lines(dataloader: DataLoader, key: str) -> Iterator[str]:
    """Why a dataloader yields no batch at all.

    Args:
        dataloader: a dataloader.
        key: its place in the config.
    """
    if isinstance(dataloader.dataset, IterableDataset):
        return
    images: Any = dataloader.dataset
    if not len(images):
        sources = ', '.join(filter(None, (source_of(leaf) for _, leaf in built_leaves(images, key))))
        yield f'{key}.dataset must have images, got none' + f' ({sources})' * bool(sources)
    elif _length(dataloader) == 0:
        own = getattr(dataloader.batch_sampler, 'batch_size', dataloader.batch_size)
        yield str(must_be(f'{key}.batch_size', f'at most {_share(dataloader)}, the number of images for each process, '
                          f'with drop_last=True', own))


def check_batches(dataloader: DataLoader, key: str) -> None:
    """Make sure that a dataloader yields batches; arguments as for :func:`batch_lines`.

    Raises:
        ConfigError: when it does not.
    """
    for line in batch_lines(dataloader, key):
        raise ConfigError(line)


def smallest_batch(dataloader: DataLoader, max_iters: float = float('inf')) -> int:
    """Number of images in the smallest batch: the last one of an epoch, where it is kept and not full.

    Args:
        dataloader: a dataloader with a batch sampler.
        max_iters: iterations of the training; the end of an epoch may be beyond.
    """
    batches: Any = dataloader.batch_sampler
    size = getattr(batches, 'batch_size', None) or dataloader.batch_size or 1
    sampler = getattr(batches, 'sampler', None)
    if getattr(batches, 'drop_last', False) or any(word in type(sampler).__name__ for word in ENDLESS):
        return size
    share = _share(dataloader)
    return share % size if share % size and share // size < max_iters else size


def _share(dataloader: DataLoader) -> int:
    """Images per epoch and process."""
    sampler: Any = getattr(dataloader.batch_sampler, 'sampler', None)
    try:
        return len(sampler)
    except TypeError:
        return len(dataloader.dataset)  # type: ignore[arg-type]


def _length(dataloader: DataLoader) -> int | None:
    try:
        return len(dataloader)
    except TypeError:
        return None
