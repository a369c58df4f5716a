"""Training data and random states that depend on the run's seed and on the number of the iteration alone."""
from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from torch.utils.data import BatchSampler, DataLoader, IterableDataset

from mmbignas.data.fixed_images import WrappedDataset
from mmbignas.utils.data_errors import DataError, one_line
from mmbignas.utils.random_states import OwnRandomness, mixed_seed, seed_cpu
from mmbignas.utils.rules import must_be


class Draw(NamedTuple):
    """What a worker is asked for: an image of the data set, and the seed of its augmentations."""

    image: int
    seed: int


class RepeatableLoader(DataLoader):
    """A dataloader whose n-th batch is the same in every run with the same seed, and that can begin at any batch.

    Each image's augmentations have a seed of their own, mixed from the run's seed, the rank, the number of the batch
    and the place in it. So they depend neither on the number of workers, nor on whether these persist, nor on what was
    loaded before. Batches that a resumed run has trained on already are not loaded again: ``None`` stands in their
    place.

    Nothing is drawn and no worker started before the first batch is asked for. Where the config gives the sampler no
    seed, it gets the run's, also after a resume.

    Args:
        loader: the dataloader as MMEngine builds it.
        rank: of this process.
        keep_sampler_seed: whether the sampler's seed is the config's own.

    Raises:
        ConfigError: for a dataloader without a batch sampler, or an ``IterableDataset``.
    """

    def __init__(self, loader: DataLoader, rank: int, keep_sampler_seed: bool) -> None:
        if loader.batch_sampler is None or isinstance(loader.dataset, IterableDataset):
            raise must_be('train_dataloader.dataset', 'a data set with __getitem__ and __len__, in batches, so that a '
                          'resumed run finds its place in it', type(loader.dataset).__name__)
        options = {name: getattr(loader, name) for name in (
            'num_workers', 'collate_fn', 'pin_memory', 'timeout', 'worker_init_fn', 'multiprocessing_context',
            'generator', 'prefetch_factor', 'persistent_workers', 'pin_memory_device', 'in_order')
            if hasattr(loader, name)}  # of these, torch 2.6 added the last one
        self._numbered = NumberedBatches(loader.batch_sampler, rank)
        self._keep_sampler_seed = keep_sampler_seed
        options['worker_init_fn'] = partial(_init_worker, loader.worker_init_fn)
        super().__init__(SeededDraws(loader.dataset), batch_sampler=self._numbered, **options)
        for name in ('sampler', 'batch_size', 'drop_last'):  # which hooks may look at; torch lets nobody set them
            object.__setattr__(self, name, getattr(loader.batch_sampler, name, getattr(loader, name)))

    def begin(self, seed: int, number: int, skip: int = 0) -> None:
        """Set what the next pass over the data begins with.

        Args:
            seed: of the run, the same on all ranks.
            number: of the batch that the pass begins with, counted from the start of the training.
            skip: how many batches are not loaded, from there on.
        """
        sampler = self._numbered.sampler
        if hasattr(sampler, 'seed') and not self._keep_sampler_seed:
            sampler.seed = seed
        self._numbered.seed, self._numbered.number, self._skip = seed, number, skip

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        """The batches; ``None`` for each that is skipped."""
        self._numbered.start()
        while self._skip > 0:
            if not self._numbered.drop():
                return  # no workers for a pass of which nothing is left
            self._skip -= 1
            yield None
        yield from super().__iter__()


def _init_worker(own: Callable[[int], Any] | None, worker: int) -> None:
    """Let a signal to the group of processes leave the workers alone; they end by themselves with the main process.

    They cannot ignore it, as it is also what the main process ends them by.
    """
    os.setpgid(0, 0)
    if own is not None:
        own(worker)


class NumberedBatches(BatchSampler):
    """A batch sampler that counts its batches and gives each image a seed.

    Args:
        inner: the batch sampler that chooses the images.
        rank: of this process.

    Attributes:
        seed: of the run.
        number: of the next batch, counted from the start of the training.
    """

    OWN = ('inner', 'rank', 'seed', 'number', '_batches', '_random')

    def __init__(self, inner: Any, rank: int) -> None:
        self.inner, self.rank = inner, rank
        self.seed = self.number = 0
        self._batches: Iterator[list[int]] | None = None
        self._random = OwnRandomness(0)

    def __getattr__(self, name: str) -> Any:
        if name == 'inner':  # not set yet while the object is unpickled
            raise AttributeError(name)
        return getattr(self.inner, name)  # sampler, batch_size, drop_last

    def __setattr__(self, name: str, value: Any) -> None:
        if name in self.OWN:
            object.__setattr__(self, name, value)
        else:
            setattr(self.inner, name, value)

    def __len__(self) -> int:
        return len(self.inner)

    def start(self) -> None:
        """Begin a pass, of which the next iteration gives the rest."""
        # The same on all ranks: a sampler that draws from the global states deals out shares of one order.
        self._random = OwnRandomness(mixed_seed(self.seed, self.number))
        with self._random:
            self._batches = iter(self.inner)

    def drop(self) -> bool:
        """Leave out a batch of the pass that :meth:`start` began; ``False`` when there is none left."""
        assert self._batches is not None
        with self._random:
            dropped = next(self._batches, None)
        if dropped is None:
            return False
        self.number += 1
        return True

    def __iter__(self) -> Iterator[list[Draw]]:  # type: ignore[override]
        if self._batches is None:
            self.start()
        batches, self._batches = self._batches, None
        assert batches is not None
        while True:
            with self._random:
                batch = next(batches, None)
            if batch is None:
                return
            number = self.number
            self.number += 1
            yield [Draw(index, mixed_seed(self.seed, self.rank, number, place)) for place, index in enumerate(batch)]


@contextmanager
def _file_named(dataset: Any, index: int) -> Iterator[None]:
    """Name the file of an image that cannot be loaded, which torch's workers would not tell."""
    try:
        yield
    except Exception as error:  # of many kinds, depending on file and transform
        info = dataset.get_data_info(index) if hasattr(dataset, 'get_data_info') else {}
        if not isinstance(info.get('img_path'), str):
            raise
        raise DataError(f'{info["img_path"]}: cannot be loaded, {one_line(error)}') from error


class SeededDraws(WrappedDataset):
    """A data set that seeds the augmentations of each image; otherwise, it is the one that it wraps."""

    def __setattr__(self, name: str, value: Any) -> None:
        # Hooks such as MMDetection's PipelineSwitchHook replace the data set's pipeline.
        if name == 'dataset':
            object.__setattr__(self, name, value)
        else:
            setattr(self.dataset, name, value)

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, Draw):
            seed_cpu(index.seed)
            index = index.image
        with _file_named(self.dataset, index):
            return self.dataset[index]

    def __getitems__(self, indices: list[Any]) -> list[Any]:
        # torch asks for it where there is one, and the wrapped data set's own would be given no plain indices.
        return [self[index] for index in indices]
