"""A fixed choice of a data set's images, decoded once and kept."""
from __future__ import annotations

import bisect
import copy
import random
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATA_SAMPLERS, DATASETS
from mmengine.runner import Runner
from torch.utils.data import BatchSampler, ConcatDataset, Dataset, Sampler

from mmbignas.utils.configs import type_name
from mmbignas.utils.models import tensors_in
from mmbignas.utils.random_states import preserved_rng, seed_cpu
from mmbignas.utils.rules import must_be

SEED = 0
LOAD_REPORT_SECONDS = 30.


def load_fixed_images(dataloader: Mapping[str, Any], num_images: int, purpose: str,
                      log: Callable[[str], Any] = print, keep: Callable[[Any], Any] = lambda batch: batch) -> list[Any]:
    """Load this process's share of a fixed random choice of images.

    They are the same ones in every run and with any number of processes, in the same batches and with the same random
    augmentations, and are kept as the pipeline leaves them: before the data preprocessor, since 8-bit images take a
    quarter of the memory that normalised ones would. The random states stay as they were.

    Args:
        dataloader: the config of a dataloader; its sampler is replaced.
        num_images: number of images, over all processes. Where the data set has fewer, all of them.
        purpose: what they are for, for the log.
        log: is told what is going on.
        keep: what of a batch is kept.

    Returns:
        list: batches, as the dataloader yields them.
    """
    begin = reported = time.time()
    batches, images = [], 0
    with preserved_rng():
        loader = Runner.build_dataloader(_fixed(dataloader, num_images), seed=SEED)
        total = min(num_images, len(loader.dataset))
        if total < num_images:
            log(f'{purpose}: the data set has {total} images, fewer than num_images={num_images}; all of them are used')
        log(f'{purpose}: loading {total} images')
        for batch in loader:
            # Copied: what a worker process sends lies in shared memory, each tensor of it an open file.
            batches.append(copy.deepcopy(keep(batch)))
            images += count_images(batch)
            if time.time() - reported > LOAD_REPORT_SECONDS:
                reported = time.time()
                log(f'{purpose}: {images} images loaded by this process')
    size = sum(tensor.numel() * tensor.element_size() for batch in batches for tensor in tensors_in(batch))
    log(f'{purpose}: keeps {images} images in {len(batches)} batches ({size / 1e6:.1f} MB) in the memory of this '
        f'process, loaded in {time.time() - begin:.1f} s')
    return batches


def _fixed(cfg: Mapping[str, Any], num_images: int) -> dict[str, Any]:
    """The dataloader's config with a fixed choice of images, each of them once, none left over."""
    dataset = cfg['dataset']
    # Drawing from the repetitions would draw images twice.
    while isinstance(dataset, Mapping) and type_name(dataset) == 'RepeatDataset':
        dataset = dataset['dataset']
    fixed = {name: value for name, value in cfg.items() if name != 'num_batch_per_epoch'}
    inner = fixed.get('batch_sampler')
    if inner is not None and 'drop_last' in inner:
        inner = {**inner, 'drop_last': False}
    # No workers are left over, and no memory is pinned for good.
    fixed.update(dataset=dict(type=SeededImages, dataset=dataset), persistent_workers=False, pin_memory=False,
                 sampler=dict(type=FixedSampler, num_images=num_images),
                 batch_sampler=dict(type=ShareOfBatches, inner=inner))
    fixed.setdefault('batch_size', 1)
    fixed.pop('drop_last', None)  # torch takes none beside a batch sampler
    return fixed


class FixedSampler(Sampler[int]):
    """A random choice of images, which is the same on all processes and in all runs.

    Args:
        dataset: the data set.
        num_images: number of images.
        seed: seed of the choice; MMEngine gives every sampler one.

    Attributes:
        dataset: the data set, for batch samplers that look at the images' shapes.
    """

    def __init__(self, dataset: Any, num_images: int, seed: int = SEED) -> None:
        self.dataset = dataset
        self.indices = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()[:num_images]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class ShareOfBatches(Sampler[list[int]]):
    """Every n-th batch of another batch sampler, for n processes.

    So the batches are the same with any number of processes, and each occurs once, where MMEngine's
    ``DefaultSampler`` shares out single images and repeats some until all processes have equally many.

    Args:
        sampler: yields all images, on each process.
        batch_size: images per batch.
        inner: config of the batch sampler; ``None`` for batches in the order of the sampler.
    """

    def __init__(self, sampler: Any, batch_size: int, inner: Mapping[str, Any] | None = None) -> None:
        self.batches = BatchSampler(sampler, batch_size, drop_last=False) if inner is None else DATA_SAMPLERS.build(
            dict(inner), default_args=dict(sampler=sampler, batch_size=batch_size))

    def __iter__(self) -> Iterator[list[int]]:
        rank, world_size = get_dist_info()
        return iter(list(self.batches)[rank::world_size])


class WrappedDataset(Dataset):
    """A data set within another, which has its length and attributes."""

    def __init__(self, dataset: Any) -> None:
        self.dataset = dataset

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not set yet while the object is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)


class SeededImages(WrappedDataset):
    """A data set each of whose items has its own seed for random augmentations.

    So an item does not depend on the worker that loads it or on what was loaded before. It sets the global random
    states, so within the process of training it belongs under :func:`~mmbignas.utils.random_states.preserved_rng`.

    Args:
        dataset: the data set or its config.
    """

    def __init__(self, dataset: Any) -> None:
        super().__init__(DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset)

    def __getitem__(self, index: int) -> Any:
        seed_cpu(SEED + index)
        return self.dataset[index]


class ChosenImages(WrappedDataset):
    """Some images of a data set, in which several may stand one behind the other.

    Args:
        dataset: the data set.
        indices: the images, ascending.
    """

    def __init__(self, dataset: Any, indices: Sequence[int]) -> None:
        super().__init__(dataset)
        self.indices = list(indices)

    def __len__(self) -> int:
        return len(self.indices)

    def __getitem__(self, index: int) -> Any:
        return self.dataset[self.indices[index]]

    def get_data_info(self, index: int) -> dict[str, Any]:
        """What the data set knows of one of the chosen images."""
        return self.dataset.get_data_info(self.indices[index])

    @property
    def cumulative_sizes(self) -> list[int]:
        """How many of the images are in the first of several data sets, in the first two, and so on."""
        return [bisect.bisect_left(self.indices, end) for end in self.dataset.cumulative_sizes]

    @property
    def metainfo(self) -> Any:
        """That of the data set, or a list of those of several, with the sizes of what was chosen."""
        own = copy.deepcopy(self.dataset.metainfo)
        for part in own if isinstance(own, list) else [own]:
            if 'cumulative_sizes' in part:
                part['cumulative_sizes'] = self.cumulative_sizes
        return own


def count_images(batch: Any) -> int:
    """Number of images of a batch: a dict, or a sequence that begins with the inputs."""
    return len(batch['inputs'] if isinstance(batch, Mapping) else batch[0])


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
        ConfigError: for a choice from a dataloader that is complete, or a data set that has no ``get_subset``; and
            for one that leaves nothing of one of several data sets.
    """
    if not isinstance(dataloader, Mapping):
        if count is not None:
            raise must_be(key, 'None with a dataloader that is built already', count)
        return dataloader, None
    prepared = dict(dataloader)
    if prepared.get('num_workers', 0) > 0:
        prepared['persistent_workers'] = True
    if count is None:
        return prepared, None
    dataset = prepared['dataset']
    dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset
    if not hasattr(dataset, 'get_subset'):
        raise must_be(key, f'None with {type(dataset).__name__}, which has no get_subset', count)
    indices = sorted(random.Random(seed).sample(range(len(dataset)), min(count, len(dataset))))
    if not isinstance(dataset, ConcatDataset):  # whose get_subset only raises
        return {**prepared, 'dataset': dataset.get_subset(indices)}, indices
    chosen = ChosenImages(dataset, indices)
    ends = [0, *chosen.cumulative_sizes]
    if any(start == end for start, end in zip(ends, ends[1:])):
        raise must_be(key, 'so many images that some are of each data set', count)
    return {**prepared, 'dataset': chosen}, indices
