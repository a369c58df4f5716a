"""A trained network as the teacher of another one."""
from __future__ import annotations

import copy
import operator
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch
from mmengine.config import Config
from torch import Tensor, nn

from mmbignas.data.calibration_images import DEFAULT_IMAGES, CalibrationImages
from mmbignas.distill.job import IN_PLACE, DistillJob, check_outputs, places, set_aside
from mmbignas.distill.recorder import OutputRecorder, Outputs, data_samples_of
from mmbignas.distill.regions import RegionCall
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS
from mmbignas.space import ModuleSpace
from mmbignas.supernet import Supernet, calibrate_bn, load_weights, model_config, read_checkpoint
from mmbignas.utils.models import unwrapped
from mmbignas.utils.random_states import preserved_rng
from mmbignas.utils.rules import check_keys, integer, must_be, text

TEACHER_KEYS = ('config', 'checkpoint', 'num_images')


@dataclass(frozen=True)
class Teacher:
    """A trained network that teaches, as a config describes it.

    Args:
        config: a config file with ``model``, or the config of a model.
        checkpoint: its weights.
        num_images: how many images a supernet is calibrated with.
        key: its place in the config, for messages.
    """

    config: str | Mapping[str, Any]
    checkpoint: str
    num_images: int = DEFAULT_IMAGES
    key: str = 'teacher'

    def check_files(self) -> None:
        """Make sure that the local files are there. Raises ConfigError for one that is not."""
        if isinstance(self.config, str) and not Path(self.config).is_file():
            raise ConfigError(f'{self.key}.config: config file not found: {self.config}')
        if '://' not in self.checkpoint and not Path(self.checkpoint).is_file():
            raise ConfigError(f'{self.key}.checkpoint: checkpoint not found: {self.checkpoint}')

    def load(self) -> nn.Module:
        """Build the network, on the CPU, in eval mode, with parameters that take no gradients.

        Raises:
            ConfigError: for a config file that is missing or has no model, or a checkpoint that cannot be read or
                is of another architecture.
        """
        self.check_files()
        model_cfg: Any = self.config
        if isinstance(self.config, str):
            cfg = Config.fromfile(self.config)
            model_cfg = model_config(cfg, f'{self.key}.config: {self.config}')
            if cfg.get('default_scope') is not None:
                model_cfg.setdefault('_scope_', cfg.default_scope)  # which need not be that of the run
        try:
            checkpoint = read_checkpoint(self.checkpoint)
            model: nn.Module = MODELS.build(copy.deepcopy(model_cfg))
            load_weights(model, checkpoint)
        except ConfigError as error:
            raise ConfigError(f'{self.key}: {error}') from None
        return model.eval().requires_grad_(False)

    def build(self, runner: Any) -> nn.Module:
        """Build the network on the device of the model of a run; a supernet is its largest subnet, calibrated.

        Args:
            runner: the runner, about to train.

        Raises:
            ConfigError: for a config or checkpoint that cannot be used, or images that are preprocessed in another way.
        """
        model = unwrapped(runner.model)
        with preserved_rng():
            teacher = self.load()
        teacher.to(next(model.parameters()).device)
        self._check_preprocessing(model, teacher)
        if _is_supernet(teacher):
            supernet = Supernet(teacher)
            supernet.apply(supernet.space.max())
            images = CalibrationImages(self.num_images, key=self.key).resolve(runner.cfg)
            calibrate_bn(teacher, images.load(runner.logger.info))
            runner.logger.info(f'{self.key}: the largest subnet of {self.checkpoint}, calibrated')
        return teacher

    def _check_preprocessing(self, model: Any, teacher: Any) -> None:
        """Refuse a teacher that was trained on images of another normalisation than it will be given."""
        ours, theirs = (_preprocessing(own.data_preprocessor) for own in (model, teacher))
        for name, value in ours.items():
            if value != theirs[name]:
                raise must_be(f'{self.key}.config: data_preprocessor.{name}', f"{value}, as the model's", theirs[name])


class Taught(NamedTuple):
    """What a teacher put out for a batch, and where the second stage of a two-stage detector looked."""

    outputs: Outputs
    regions: list[RegionCall]


class TeacherDistillation:
    """Adds the losses between a model and its teacher to those that the model returns in mode ``loss``.

    Forward hooks of the model itself do this, so it works in every training loop and every process of DDP, with mixed
    precision and with accumulated gradients. The teacher is given what the model is given, once per batch, even where
    several forward passes train on it. It is not part of the model. The losses that a job replaces are not trained on.

    Args:
        model: the student, not a wrapper.
        teacher: a network with ``forward(..., mode='tensor')``, in eval mode, on the model's device.
        jobs: name -> job. The loss is called ``loss_distill_<name>``.
        iteration: returns the number of the iteration, for the warm-up.

    Raises:
        ConfigError: for a module that is not in the model or in the teacher. In a forward pass: for one without an
            output, or with outputs of another shape than the teacher's; for a loss to replace that the model has not.
    """

    def __init__(self, model: nn.Module, teacher: nn.Module, jobs: Mapping[str, DistillJob],
                 iteration: Callable[[], int]) -> None:
        self.teacher, self.jobs, self.iteration = teacher, jobs, iteration
        self._teacher_recorder = OutputRecorder(teacher, {
            name: f'{place}, in the teacher' for name, place in places(jobs.values(), 'teacher_mimic_name').items()})
        self._recorder = OutputRecorder(model, places(jobs.values(), 'mimic_name'))
        self._handles = [model.register_forward_pre_hook(self._before, with_kwargs=True),
                         model.register_forward_hook(self._after, with_kwargs=True)]
        self.forget()

    def forget(self) -> None:
        """Let go of the batches and of the teacher's outputs."""
        self._seen: list[tuple[list[Any], Taught]] = []  # batches, and what the teacher made of them
        self._taught = Taught({}, [])

    def remove(self) -> None:
        """Take everything off the model."""
        self.forget()
        self._recorder.remove()
        self._teacher_recorder.remove()
        for handle in self._handles:
            handle.remove()

    def _active(self, kwargs: dict[str, Any]) -> dict[str, DistillJob]:
        """The jobs of a forward pass: those of the iteration, where losses are computed."""
        if kwargs.get('mode') != 'loss':
            return {}
        return {name: job for name, job in self.jobs.items() if job.active(self.iteration())}

    def _before(self, model: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Let the teacher compute, before there are activations of the student."""
        if not self._active(kwargs):
            return
        batch = [*args, *(value for name, value in kwargs.items() if name != 'mode')]
        known = next((taught for seen, taught in self._seen if len(seen) == len(batch) and all(
            map(operator.is_, seen, batch))), None)
        if known is None:
            self._teacher_recorder.start()
            with torch.no_grad():
                self.teacher(*args, **{**kwargs, 'mode': 'tensor'})
            outputs = self._teacher_recorder.stop()
            known = Taught(outputs, self._teacher_recorder.regions)
            self._seen.append((batch, known))
        self._taught = known
        self._recorder.start()

    def _after(self, model: nn.Module, args: tuple, kwargs: dict[str, Any], losses: Any) -> dict[str, Any] | None:
        """Add the losses to those of the model, or put them in the place of some."""
        jobs = self._active(kwargs)
        if not jobs:
            return None
        outputs, losses = self._recorder.on_regions(self._recorder.stop(), self._taught.regions), {**losses}
        set_aside(losses, jobs.values())
        check_outputs(outputs, jobs.values(), 'mimic_name', 'a forward pass of the model')
        check_outputs(self._taught.outputs, jobs.values(), 'teacher_mimic_name', 'a forward pass of the teacher')
        data_samples = data_samples_of(args or kwargs)  # MMEngine gives a batch as the one or the other
        for name, job in jobs.items():
            losses[f'loss_distill_{name}'] = job(outputs, self._taught.outputs, self.iteration(), data_samples)
        return losses


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
            raise must_be(f'the name of a teacher in {key}', f"a name without '/', other than {IN_PLACE}, the largest "
                          'subnet', name)
    return {name: _parse_teacher(own, f'{key}.{name}') for name, own in cfg.items()}


def _parse_teacher(cfg: Any, key: str) -> Teacher:
    check_keys(cfg, key, TEACHER_KEYS, TEACHER_KEYS[:2])
    config, checkpoint, num_images = (cfg.get(name, DEFAULT_IMAGES) for name in TEACHER_KEYS)
    if not (isinstance(config, str) or isinstance(config, Mapping) and 'type' in config):
        raise must_be(f'{key}.config', 'a config file, or the config of a model, a dict with type', config)
    text('a file, or an address that MMEngine knows to load').check(checkpoint, f'{key}.checkpoint')
    integer(1).check(num_images, f'{key}.num_images')
    return Teacher(config, checkpoint, num_images, key)


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
