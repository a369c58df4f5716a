"""The images that BN statistics are calibrated with."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.structures import BaseDataElement

from mmbignas.data.check_data import check_dataset_files
from mmbignas.data.fixed_images import load_fixed_images
from mmbignas.errors import ConfigError
from mmbignas.utils.checks import type_name

DEFAULT_IMAGES = 2048


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
    """Load this process's share of a fixed random choice of images, without ground truth boxes and masks.

    Args:
        dataloader: the config of a dataloader; its sampler is replaced.
        num_images: number of images, over all processes. Where the data set has fewer, all of them.
        log: is told what is going on.

    Returns:
        list: batches, as :func:`~mmbignas.supernet.calibrate_bn` takes them; see
        :func:`~mmbignas.data.fixed_images.load_fixed_images`.
    """
    return load_fixed_images(dataloader, num_images, 'BN calibration', log, _without_ground_truth)


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
