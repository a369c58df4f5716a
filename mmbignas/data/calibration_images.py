"""The images that BN statistics are calibrated with."""
from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from mmengine.structures import BaseDataElement

from mmbignas.data.check_data import check_dataset_files
from mmbignas.data.fixed_images import load_fixed_images
from mmbignas.utils.configs import type_name
from mmbignas.utils.rules import Rule, integer, must_be

DEFAULT_IMAGES = 2048
DATALOADER = Rule(lambda value: isinstance(value, Mapping) and 'dataset' in value,
                  'the config of a dataloader, a dict with dataset')


class CalibrationImages:
    """A fixed random choice of images, loaded when they are needed.

    See :func:`~mmbignas.data.fixed_images.load_fixed_images` for the choice and how they are kept. Ground truth boxes
    and masks are not.

    Args:
        num_images: number of images, over all processes. Where the data set has fewer, all of them.
        dataloader: the config of a dataloader; its sampler is replaced. ``None`` for ``train_dataloader`` of the run.
        key: what has these options, for messages.

    Raises:
        ConfigError: for a number of images below 1, or a dataloader that is not a config.

    Example:
        >>> images = CalibrationImages(256).resolve(cfg)
        >>> calibrate_bn(model, images.load())
    """

    def __init__(self, num_images: int = DEFAULT_IMAGES, dataloader: Mapping[str, Any] | None = None,
                 key: str = 'BNCalibrationHook') -> None:
        self.num_images = integer(1).check(num_images, f'{key}.num_images')
        self.dataloader = DATALOADER.or_none().check(dataloader, f'{key}.dataloader')
        self.key = key
        self._batches: list[Any] | None = None

    @classmethod
    def from_config(cls, cfg: Mapping[str, Any], num_images: int | None = None,
                    key: str = 'num_images') -> CalibrationImages | None:
        """What the run of a config calibrates with, resolved.

        Args:
            cfg: config of a run; its ``BNCalibrationHook`` says which images and how many.
            num_images: another number of images; 0 for no calibration. Without a hook in the config, ``None`` is no
                calibration either, and the images are those of ``train_dataloader``.
            key: where ``num_images`` was given, for messages.

        Raises:
            ConfigError: for a number below 0, or a dataloader that is missing or names files that do not exist.
        """
        if num_images is not None:
            integer(0).check(num_images, key)
        own = next((hook for hook in cfg.get('custom_hooks') or () if type_name(hook) == 'BNCalibrationHook'), None)
        if num_images is None:
            num_images = 0 if own is None else own.get('num_images', DEFAULT_IMAGES)
        return cls(num_images, (own or {}).get('dataloader')).resolve(cfg) if num_images else None

    def resolve(self, cfg: Mapping[str, Any]) -> CalibrationImages:
        """Find out, before anything slow, which dataloader of a run's config it is; return this object.

        Raises:
            ConfigError: for a dataloader that is missing or names files that do not exist.
        """
        key = f'{self.key}.dataloader'
        if self.dataloader is None:
            if cfg.get('train_dataloader') is None:
                raise must_be(key, f'{DATALOADER.allowed}, as there is no train_dataloader', None)
            key = 'train_dataloader'
            self.dataloader = DATALOADER.check(cfg[key], key)
        check_dataset_files(self.dataloader['dataset'], f'{key}.dataset')
        return self

    def load(self, log: Callable[[str], Any] = print) -> list[Any]:
        """Load this process's share: batches, as :func:`~mmbignas.supernet.calibrate_bn` takes them."""
        assert self.dataloader is not None, 'resolve comes first'
        return load_fixed_images(self.dataloader, self.num_images, 'BN calibration', log, _without_ground_truth)

    def batches(self, log: Callable[[str], Any] = print) -> list[Any]:
        """As :meth:`load`, which is done once; they are kept."""
        if self._batches is None:
            self._batches = self.load(log)
        return self._batches


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
