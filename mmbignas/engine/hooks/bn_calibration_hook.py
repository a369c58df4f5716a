"""BN calibration around the evaluation of a subnet, and the images that it is done with."""
from __future__ import annotations

import copy
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from mmengine.dist import get_dist_info
from mmengine.hooks import Hook
from mmengine.registry import DATASETS
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from mmbignas.engine.checks import check_dataset_files
from mmbignas.errors import ConfigError
from mmbignas.registry import HOOKS
from mmbignas.supernet.calibration import BNState, calibrate_bn

SEED = 0
REPORT_SECONDS = 30.


@HOOKS.register_module()
class BNCalibrationHook(Hook):
    """Calibrates the BN statistics of a subnet before its evaluation and puts the old ones back after it.

    It serves :class:`~mmbignas.engine.loops.SubnetValLoop`; see :func:`~mmbignas.supernet.calibration.calibrate_bn`
    for what calibration does.

    The images are a fixed random choice: the same ones for every subnet, in every validation, in every run and with
    any number of processes, with the same random augmentations. They are loaded when they are first needed, and then
    stay in memory as the pipeline leaves them: before the data preprocessor, since 8-bit images take a quarter of the
    memory that normalised ones would. At 800x1333 that is about 3 MB an image, so 6.5 GB for 2,048 images, spread
    over the processes; four times that if the pipeline makes floats of them, as ``PhotoMetricDistortion`` does.
    Ground truth boxes and masks are not kept.

    Args:
        num_images: number of images, over all processes. Where the data set has fewer, all of them.
        dataloader: the config of a dataloader; its sampler is replaced. Default: ``train_dataloader`` of the config.

    Raises:
        ConfigError: for a number of images below 1 or a dataloader that is not a config; when the run starts, for a
            dataloader that is missing or names files that do not exist.
    """

    def __init__(self, num_images: int = 2048, dataloader: Mapping[str, Any] | None = None) -> None:
        if isinstance(num_images, bool) or not isinstance(num_images, int) or num_images < 1:
            raise ConfigError(f'BNCalibrationHook.num_images: {num_images!r} is not allowed; allowed: integers from 1')
        if dataloader is not None:
            _check_dataloader(dataloader, 'BNCalibrationHook.dataloader')
        self.num_images = num_images
        self.dataloader = dataloader
        self._batches: list[Any] | None = None
        self._state: BNState | None = None

    def before_run(self, runner: Any) -> None:
        """Check the dataloader's config before anything slow.

        Args:
            runner: the runner.
        """
        self._dataloader_cfg(runner)

    def before_subnet_eval(self, runner: Any, subnet_eval: Any) -> None:
        """Calibrate the model, if this evaluation asks for it.

        Args:
            runner: the runner; the subnet is applied to its model.
            subnet_eval: has ``name`` and ``calib_bn``.
        """
        if not subnet_eval.calib_bn:
            return
        if self._batches is None:
            self._batches = self._load(runner)
        state, begin = BNState(runner.model), time.time()
        calibrate_bn(runner.model, self._batches)
        self._state = state
        runner.logger.info(f'BN calibration of {subnet_eval.name}: {time.time() - begin:.1f} s')

    def after_subnet_eval(self, runner: Any, subnet_eval: Any) -> None:
        """Put the statistics back that the model had before the calibration.

        Args:
            runner: the runner.
            subnet_eval: as in :meth:`before_subnet_eval`.
        """
        if self._state is not None:
            self._state.restore()
            self._state = None

    def _dataloader_cfg(self, runner: Any) -> Mapping[str, Any]:
        """The config of the dataloader, checked."""
        cfg, key = self.dataloader, 'BNCalibrationHook.dataloader'
        if cfg is None:
            cfg, key = runner.cfg.get('train_dataloader'), 'train_dataloader'
            if cfg is None:
                raise ConfigError('BNCalibrationHook.dataloader: None is not allowed, since the config has no '
                                  'train_dataloader; allowed: the config of a dataloader for the calibration images')
            _check_dataloader(cfg, key)
        check_dataset_files(cfg['dataset'], f'{key}.dataset')
        return cfg

    def _load(self, runner: Any) -> list[Any]:
        """Load this process's share of the images."""
        begin = reported = time.time()
        batches, images = [], 0
        with preserved_rng():
            loader = runner.build_dataloader(self._fixed(self._dataloader_cfg(runner)), seed=SEED)
            total = min(self.num_images, len(loader.dataset))
            if total < self.num_images:
                runner.logger.info(f'BN calibration: the data set has {total} images, fewer than '
                                   f'num_images={self.num_images}; all of them are used')
            runner.logger.info(f'BN calibration: loading {total} images')
            for batch in loader:
                # Copied: what a worker process sends lies in shared memory, each tensor of it an open file.
                batches.append(copy.deepcopy(_without_ground_truth(batch)))
                images += _num_images(batch)
                if time.time() - reported > REPORT_SECONDS:
                    reported = time.time()
                    runner.logger.info(f'BN calibration: {images} images loaded by this process')
        size = sum(tensor.numel() * tensor.element_size() for batch in batches for tensor in _tensors(batch))
        runner.logger.info(f'BN calibration: keeps {images} images in {len(batches)} batches ({size / 1e6:.1f} MB) in '
                           f'the memory of this process, loaded in {time.time() - begin:.1f} s')
        return batches

    def _fixed(self, cfg: Mapping[str, Any]) -> dict[str, Any]:
        """The dataloader's config with a fixed choice of images, each of them once, none left over."""
        dataset = cfg['dataset']
        # Drawing from the repetitions would draw images twice.
        while isinstance(dataset, Mapping) and _type_name(dataset) == 'RepeatDataset':
            dataset = dataset['dataset']
        fixed = {name: value for name, value in cfg.items() if name != 'num_batch_per_epoch'}
        # No workers are left over, and no memory is pinned for good.
        fixed.update(dataset=dict(type=SeededDataset, dataset=dataset), drop_last=False, persistent_workers=False,
                     pin_memory=False, sampler=dict(type=CalibrationSampler, num_images=self.num_images))
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


def _check_dataloader(cfg: Any, key: str) -> None:
    if not isinstance(cfg, Mapping) or 'dataset' not in cfg:
        raise ConfigError(f'{key}: {cfg!r} is not allowed; allowed: the config of a dataloader, a dict with dataset')


def _type_name(cfg: Mapping[str, Any]) -> str:
    """The class name in a config whose ``type`` is a name, with or without scope, or a class."""
    return str(getattr(cfg['type'], '__name__', cfg['type'])).rsplit('.', 1)[-1]


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


def _tensors(batch: Any) -> Iterator[Tensor]:
    """All tensors of a batch that stand in dicts and sequences."""
    if isinstance(batch, Tensor):
        yield batch
    elif isinstance(batch, Mapping):
        for value in batch.values():
            yield from _tensors(value)
    elif isinstance(batch, Sequence) and not isinstance(batch, str):
        for value in batch:
            yield from _tensors(value)


def _num_images(batch: Any) -> int:
    """Number of images of a batch: a dict, or a sequence that begins with the inputs."""
    return len(batch['inputs'] if isinstance(batch, Mapping) else batch[0])
