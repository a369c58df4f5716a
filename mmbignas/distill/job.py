"""What a distillation job in a config says."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from mmbignas.distill.recorder import Outputs
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS

JOB_KEYS = ('mimic_name', 'loss', 'loss_weight', 'warm_up_iters', 'teacher_mimic_name', 'replaces')


@dataclass(frozen=True)
class DistillJob:
    """Which modules are compared, by which loss, with which weight.

    Args:
        names: paths of the student's modules.
        teacher_names: paths of the teacher's modules, one for each of the student's.
        loss: see :mod:`mmbignas.distill.losses`.
        loss_weight: factor of the loss.
        warm_up_iters: number of iterations over which the factor grows linearly from 0.
        replaces: names of the model's own losses that students are not trained on.
    """

    names: tuple[str, ...]
    teacher_names: tuple[str, ...]
    loss: nn.Module
    loss_weight: float
    warm_up_iters: int
    replaces: tuple[str, ...] = ()

    def __call__(self, student: Outputs, teacher: Outputs, iteration: int) -> Tensor:
        """The weighted loss in an iteration.

        Args:
            student: outputs of :attr:`names`.
            teacher: outputs of :attr:`teacher_names`.
            iteration: number of the iteration.
        """
        ramp = min(1., iteration / self.warm_up_iters) if self.warm_up_iters else 1.
        loss = self.loss([student[name] for name in self.names], [teacher[name] for name in self.teacher_names])
        return loss * (self.loss_weight * ramp)


def parse_jobs(jobs: Any, key: str) -> dict[str, DistillJob]:
    """Read the jobs of a config.

    Args:
        jobs: name -> ``dict(mimic_name=..., loss=dict(type=...), loss_weight=1., warm_up_iters=0,
            teacher_mimic_name=..., replaces=...)``.
        key: their place in the config.

    Returns:
        dict: name -> job, in the same order.

    Raises:
        ConfigError: for a job that is not complete or has values that are not allowed.
    """
    if not isinstance(jobs, Mapping) or not jobs:
        raise ConfigError(f'{key}: expected a dict of jobs, got {jobs!r}')
    return {name: _parse_job(job, f'{key}.{name}') for name, job in jobs.items()}


def places(jobs: Mapping[str, DistillJob], key: str, field: str) -> dict[str, str]:
    """Where the modules of jobs stand in the config.

    Args:
        jobs: name -> job.
        key: the jobs' place in the config.
        field: ``mimic_name``, or ``teacher_mimic_name`` for the teacher's modules.

    Returns:
        dict: path of a module -> place of the first job that has it.
    """
    found: dict[str, str] = {}
    for name, job in jobs.items():
        for module in job.names if field == 'mimic_name' else job.teacher_names:
            found.setdefault(module, f'{key}.{name}.{field}')
    return found


def _parse_job(job: Any, key: str) -> DistillJob:
    if not isinstance(job, Mapping) or set(job) - set(JOB_KEYS) or not {'mimic_name', 'loss'} <= set(job):
        raise ConfigError(f'{key}: expected a dict with mimic_name and loss, optionally loss_weight, '
                          f'warm_up_iters, teacher_mimic_name and replaces, got {job!r}')
    names = _names(job['mimic_name'], f'{key}.mimic_name', 'the path of a module, or a list of paths')
    teacher_names = names
    if 'teacher_mimic_name' in job:
        teacher_names = _names(job['teacher_mimic_name'], f'{key}.teacher_mimic_name',
                               'the path of a module, or a list of paths')
        if len(teacher_names) != len(names):
            raise ConfigError(f'{key}.teacher_mimic_name: {list(teacher_names)} is not allowed with mimic_name '
                              f'{list(names)}; allowed: as many modules')
    warm_up_iters, loss_weight = job.get('warm_up_iters', 0), job.get('loss_weight', 1.)
    for name, value in (('warm_up_iters', warm_up_iters), ('loss_weight', loss_weight)):
        if not isinstance(value, (int, float)) or not 0 <= value < math.inf:
            raise ConfigError(f'{key}.{name}: {value!r} is not allowed; allowed: numbers from 0')
    replaces: tuple[str, ...] = ()
    if 'replaces' in job:
        replaces = _names(job['replaces'], f'{key}.replaces', "the name of one of the model's losses, or a list of "
                          'names')
        if warm_up_iters:
            raise ConfigError(f'{key}.warm_up_iters: {warm_up_iters!r} is not allowed with replaces {list(replaces)}: '
                              'students would have nothing to learn from at first; allowed: 0')
        if not loss_weight:
            raise ConfigError(f'{key}.loss_weight: {loss_weight!r} is not allowed with replaces {list(replaces)}: '
                              'students would have nothing to learn from; allowed: numbers greater than 0')
    return DistillJob(names, teacher_names, MODELS.build(job['loss']), loss_weight, warm_up_iters, replaces)


def _names(value: Any, key: str, allowed: str) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names or any(not isinstance(name, str) for name in names):
        raise ConfigError(f'{key}: {value!r} is not allowed; allowed: {allowed}')
    return tuple(names)
