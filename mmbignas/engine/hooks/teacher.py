"""The teachers of a run: built, checked against the model, calibrated."""
from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from mmengine.model import is_model_wrapper
from torch import Tensor, nn

from mmbignas.distill import IN_PLACE, TeacherSource
from mmbignas.engine.calibration_images import (
    DEFAULT_IMAGES,
    calibration_dataloader,
    load_calibration_images,
)
from mmbignas.engine.checks import check_count
from mmbignas.engine.random_states import preserved_rng
from mmbignas.errors import ConfigError
from mmbignas.space import ModuleSpace
from mmbignas.supernet import Supernet, calibrate_bn

TEACHER_KEYS = ('config', 'checkpoint', 'num_images')


def parse_teachers(cfg: Any, key: str) -> dict[str, Teacher]:
    """Read the teachers of a config.

    Args:
        cfg: ``dict(config=..., checkpoint=..., num_images=2048)``, which is called ``teacher``; or, for several, a dict
            of names and such dicts; or ``None``.
        key: its place in the config.

    Raises:
        ConfigError: for a teacher that is not complete or has values that are not allowed.
    """
    if cfg is None:
        return {}
    if not isinstance(cfg, Mapping) or not cfg or set(cfg) & set(TEACHER_KEYS):
        return dict(teacher=_parse_teacher(cfg, key))
    for name in cfg:
        if not isinstance(name, str) or name == IN_PLACE or '/' in name:
            raise ConfigError(f'{key}: {name!r} is not allowed as the name of a teacher; allowed: names without "/", '
                              f'but {IN_PLACE!r}, which is the largest subnet')
    return {name: _parse_teacher(own, f'{key}.{name}') for name, own in cfg.items()}


def _parse_teacher(cfg: Any, key: str) -> Teacher:
    if not isinstance(cfg, Mapping) or set(cfg) - set(TEACHER_KEYS) or not {'config', 'checkpoint'} <= set(cfg):
        raise ConfigError(f'{key}: expected a dict with config and checkpoint, optionally num_images, got {cfg!r}')
    config, checkpoint = cfg['config'], cfg['checkpoint']
    if not (isinstance(config, str) or isinstance(config, Mapping) and 'type' in config):
        raise ConfigError(f'{key}.config: {config!r} is not allowed; allowed: a config file, or the config of a model, '
                          'a dict with type')
    if not isinstance(checkpoint, str):
        raise ConfigError(f'{key}.checkpoint: {checkpoint!r} is not allowed; allowed: a file, or an address that '
                          'MMEngine knows to load')
    num_images = check_count(cfg.get('num_images', DEFAULT_IMAGES), f'{key}.num_images')
    return Teacher(TeacherSource(config, checkpoint), num_images, key)


@dataclass(frozen=True)
class Teacher:
    """A teacher as a config describes it.

    Args:
        source: where the network comes from.
        num_images: how many images a supernet is calibrated with.
        key: its place in the config, for messages.
    """

    source: TeacherSource
    num_images: int
    key: str

    def build(self, runner: Any) -> nn.Module:
        """Build the network, on the device of the model of a run, in eval mode.

        Args:
            runner: the runner, about to train.

        Raises:
            ConfigError: for a config or checkpoint that cannot be used, or images that are preprocessed in another way.
        """
        model: nn.Module = runner.model.module if is_model_wrapper(runner.model) else runner.model
        with preserved_rng():
            teacher = self.source.build(self.key)
        teacher.to(next(model.parameters()).device)
        self._check_preprocessing(model, teacher)
        if _is_supernet(teacher):
            supernet = Supernet(teacher)
            supernet.apply(supernet.space.max())
            dataloader = calibration_dataloader(None, runner.cfg, 'train_dataloader')
            calibrate_bn(teacher, load_calibration_images(dataloader, self.num_images, runner.logger.info))
            runner.logger.info(f'{self.key}: the largest subnet of {self.source.checkpoint}, calibrated')
        return teacher

    def _check_preprocessing(self, model: Any, teacher: Any) -> None:
        """Refuse a teacher that was trained on images of another normalisation than it will be given."""
        ours, theirs = (_preprocessing(own.data_preprocessor) for own in (model, teacher))
        for name, value in ours.items():
            if value != theirs[name]:
                raise ConfigError(f'{self.key}.config: data_preprocessor has {name} {theirs[name]}, but that of the '
                                  f'model has {value}; allowed: teachers of images that are preprocessed like those '
                                  'of the model')


def _is_supernet(model: nn.Module) -> bool:
    """Whether anything in the model can be chosen."""
    spaces = (getattr(module, 'search_space', None) for module in model.modules())
    return any(isinstance(space, ModuleSpace) and space.searched for space in spaces)


def _preprocessing(preprocessor: Any) -> dict[str, Any]:
    """Normalisation, and whether the channels are reversed, as MMEngine's preprocessors and MMPretrain's have them."""
    mean, std = (getattr(preprocessor, name, None) for name in ('mean', 'std'))
    reversed_channels = getattr(preprocessor, '_channel_conversion', False) or getattr(preprocessor, 'to_rgb', False)
    return dict(mean=mean.flatten().tolist() if isinstance(mean, Tensor) else mean,
                std=std.flatten().tolist() if isinstance(std, Tensor) else std,
                reversed_channels=bool(reversed_channels))
