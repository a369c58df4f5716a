"""The images that BN statistics are calibrated with."""
from __future__ import annotations

import copy
import random
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.registry import DATASETS
from mmengine.runner import Runner
from mmengine.structures import BaseDataElement
from torch.utils.data import Dataset, Sampler

from mmbignas.engine.checks import check_dataset_files, type_name
from mmbignas.errors import ConfigError
from mmbignas.tensors import tensors_in

SEED = 0
DEFAULT_IMAGES = 2048
REPORT_SECONDS = 30.


def check_num_images(num_images: Any, key: str) -> int:
    """The number of images, if it is one.

    Args:
        num_images: what the config says.
        key: its place in the config.

    Raises:
        ConfigError: for anything but integers from 1.
    """
    if isinstance(num_images, bool) or not isinstance(num_images, int) or num_images < 1:
        raise ConfigError(f'{key}: {num_images!r} is not allowed; allowed: integers from 1')
    return num_images


def check_dataloader(cfg: Any, key: str) -> None:
    """Make sure that this is the config of a dataloader.

    Args:
        cfg: what the config says.
        key: its place in the config.

    Raises:
        ConfigError: if it is not.
    """
    if not isinstance(cfg, Mapping) or 'dataset' not in cfg:
        raise ConfigError(f'{key}: {cfg!r} is not allowed; allowed: the config of a dataloader, a dict with dataset')


def calibration_dataloader(own: Mapping[str, Any] | None, cfg: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    """The dataloader's config of the calibration images, with files that exist.

    Args:
        own: the config that was given for them, or ``None`` for ``train_dataloader`` of the run.
        cfg: the config of the run.
        key: place of ``own`` in the config.

    Raises:
        ConfigError: for a dataloader that is missing or names files that do not exist.
    """
    if own is None:
        own = cfg.get('train_dataloader')
        if own is None:
            raise ConfigError(f'{key}: None is not allowed, since the config has no train_dataloader; allowed: the '
                              'config of a dataloader for the calibration images')
        key = 'train_dataloader'
    check_dataloader(own, key)
    check_dataset_files(own['dataset'], f'{key}.dataset')
    return own


@dataclass(frozen=True)
class Calibration:
    """What BN statistics are calibrated with, outside of a Runner.

    Args:
        dataloader: config of a dataloader.
        num_images: how many of its images.
    """

    dataloader: Mapping[str, Any]
    num_images: int

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any], num_images: int | None = None,
                    key: str = 'num_images') -> Calibration | None:
        """What the run of a config calibrates with.

        Args:
            cfg: config of a run; its ``BNCalibrationHook`` says which images and how many.
            num_images: another number of images; 0 for no calibration. Without a hook in the config, ``None`` is no
                calibration either, and the images are those of ``train_dataloader``.
            key: where ``num_images`` was given, for messages.

        Raises:
            ConfigError: for a number below 0, or a dataloader that is missing or names files that do not exist.
        """
        hooks = [hook for hook in cfg.get('custom_hooks') or () if type_name(hook) == 'BNCalibrationHook']
        own = hooks[0] if hooks else {}
        if num_images is None:
            num_images = own.get('num_images', DEFAULT_IMAGES) if hooks else 0
        if num_images == 0:
            return None
        if isinstance(num_images, bool) or not isinstance(num_images, int) or num_images < 0:
            raise ConfigError(f'{key}: {num_images!r} is not allowed; allowed: integers from 0')
        return cls(calibration_dataloader(own.get('dataloader'), cfg, 'BNCalibrationHook.dataloader'), num_images)

    def load(self, log: Callable[[str], Any] = print) -> list[Any]:
        """The batches; see :func:`load_calibration_images`."""
        return load_calibration_images(self.dataloader, self.num_images, log)


def load_calibration_images(dataloader: Mapping[str, Any], num_images: int,
                            log: Callable[[str], Any] = print) -> list[Any]:
    """Load this process's share of a fixed random choice of images.

    They are the same ones in every run and with any number of processes, with the same random augmentations, and are
    kept as the pipeline leaves them: before the data preprocessor, since 8-bit images take a quarter of the memory
    that normalised ones would. Ground truth boxes and masks are not kept. The random states stay as they were.

    Args:
        dataloader: the config of a dataloader; its sampler is replaced.
        num_images: number of images, over all processes. Where the data set has fewer, all of them.
        log: is told what is going on.

    Returns:
        list: batches, as :func:`~mmbignas.supernet.calibrate_bn` takes them.
    """
    begin = reported = time.time()
    batches, images = [], 0
    with preserved_rng():
        loader = Runner.build_dataloader(_fixed(dataloader, num_images), seed=SEED)
        total = min(num_images, len(loader.dataset))
        if total < num_images:
            log(f'BN calibration: the data set has {total} images, fewer than num_images={num_images}; all of them '
                'are used')
        log(f'BN calibration: loading {total} images')
        for batch in loader:
            # Copied: what a worker process sends lies in shared memory, each tensor of it an open file.
            batches.append(copy.deepcopy(_without_ground_truth(batch)))
            images += count_images(batch)
            if time.time() - reported > REPORT_SECONDS:
                reported = time.time()
                log(f'BN calibration: {images} images loaded by this process')
    size = sum(tensor.numel() * tensor.element_size() for batch in batches for tensor in tensors_in(batch))
    log(f'BN calibration: keeps {images} images in {len(batches)} batches ({size / 1e6:.1f} MB) in the memory of this '
        f'process, loaded in {time.time() - begin:.1f} s')
    return batches


def _fixed(cfg: Mapping[str, Any], num_images: int) -> dict[str, Any]:
    """The dataloader's config with a fixed choice of images, each of them once, none left over."""
    dataset = cfg['dataset']
    # Drawing from the repetitions would draw images twice.
    while isinstance(dataset, Mapping) and type_name(dataset) == 'RepeatDataset':
        dataset = dataset['dataset']
    fixed = {name: value for name, value in cfg.items() if name != 'num_batch_per_epoch'}
    # No workers are left over, and no memory is pinned for good.
    fixed.update(dataset=dict(type=SeededDataset, dataset=dataset), drop_last=False, persistent_workers=False,
                 pin_memory=False, sampler=dict(type=CalibrationSampler, num_images=num_images))
    if 'drop_last' in (cfg.get('batch_sampler') or {}):
        fixed['batch_sampler'] = {**cfg['batch_sampler'], 'drop_last': False}
    return fixed


class CalibrationSampler(Sampler[int]):
    """This process's share of a random choice of images, which is the same on all processes and in all runs.

    MMEngine's ``DefaultSampler`` repeats images until all processes have equally many; here each image occurs once.

    Args:
        dataset: the data set.
        num_images: number of images, over all processes.
        seed: seed of the choice.

    Attributes:
        dataset: the data set, for batch samplers that look at the images' shapes.
    """

    def __init__(self, dataset: Any, num_images: int, seed: int = SEED) -> None:
        order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(seed)).tolist()
        rank, world_size = get_dist_info()
        self.dataset = dataset
        self.indices = order[:num_images][rank::world_size]

    def __iter__(self) -> Iterator[int]:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class SeededDataset(Dataset):
    """A data set each of whose items has its own seed for random augmentations.

    So an item does not depend on the worker that loads it or on what was loaded before. It sets the global random
    states, so within the process of training it belongs under :func:`preserved_rng`.

    Args:
        dataset: the data set or its config.
    """

    def __init__(self, dataset: Any) -> None:
        self.dataset = DATASETS.build(dataset) if isinstance(dataset, Mapping) else dataset

    def __getattr__(self, name: str) -> Any:
        if name == 'dataset':  # not set yet while the object is unpickled
            raise AttributeError(name)
        return getattr(self.dataset, name)

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, index: int) -> Any:
        random.seed(SEED + index)
        np.random.seed(SEED + index)  # noqa: NPY002 (what MMEngine's transforms draw from)
        torch.default_generator.manual_seed(SEED + index)  # torch.manual_seed would also seed the GPUs
        return self.dataset[index]


@contextmanager
def preserved_rng() -> Iterator[None]:
    """Put the random states of Python, NumPy and torch (CPU) back at the end."""
    states = random.getstate(), np.random.get_state(), torch.get_rng_state()  # noqa: NPY002
    try:
        yield
    finally:
        random.setstate(states[0])
        np.random.set_state(states[1])  # noqa: NPY002
        torch.set_rng_state(states[2])


def _without_ground_truth(batch: Any) -> Any:
    """The batch without annotations: masks take more memory than the image, and mode ``tensor`` needs none.

    Labels of whole images stay, since some data preprocessors ask for them.
    """
    if isinstance(batch, BaseDataElement):
        bare = type(batch)(metainfo=batch.metainfo)
        bare.set_data({name: value for name, value in batch.items()
                       if not (isinstance(value, BaseDataElement) and name.startswith(('gt_', 'ignored_')))})
        return bare
    if isinstance(batch, Mapping):
        return {name: _without_ground_truth(value) for name, value in batch.items()}
    if isinstance(batch, (list, tuple)):
        return [_without_ground_truth(value) for value in batch]
    return batch


def count_images(batch: Any) -> int:
    """Number of images of a batch: a dict, or a sequence that begins with the inputs."""
    return len(batch['inputs'] if isinstance(batch, Mapping) else batch[0])
