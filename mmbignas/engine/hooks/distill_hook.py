"""In-place distillation as a hook of the sandwich loop."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.hooks import Hook
from torch import Tensor, nn

from mmbignas.distill import OutputRecorder, Outputs
from mmbignas.engine.sandwich import SandwichRule, SubnetPass
from mmbignas.errors import ConfigError
from mmbignas.registry import HOOKS, MODELS

JOB_KEYS = ('mimic_name', 'loss', 'loss_weight', 'warm_up_iters')


@dataclass(frozen=True)
class DistillJob:
    """Which modules are compared, by which loss, with which weight."""

    names: tuple[str, ...]
    loss: nn.Module
    loss_weight: float
    warm_up_iters: int

    def __call__(self, student: Outputs, teacher: Outputs, iteration: int) -> Tensor:
        """The weighted loss in an iteration; the weight grows linearly from 0 over the warm-up iterations."""
        ramp = min(1., iteration / self.warm_up_iters) if self.warm_up_iters else 1.
        loss = self.loss([student[name] for name in self.names], [teacher[name] for name in self.names])
        return loss * (self.loss_weight * ramp)


@HOOKS.register_module()
class DistillHook(Hook):
    """In-place distillation: the largest subnet teaches the others of the same iteration (BigNAS, section 3.1).

    The outputs of the named modules in the largest subnet's pass are kept, detached, and compared with those of each
    later pass. They belong to one batch: a schedule in which teacher and student would see different batches is
    refused. The largest subnet is never a student of itself. Losses are logged as ``<subnet>.loss_distill_<job>``.

    Args:
        jobs: name -> ``dict(mimic_name=..., loss=dict(type=...), loss_weight=1., warm_up_iters=0)``, where
            ``mimic_name`` is the path of a module in the model, or a list of paths, and ``loss`` is one of
            :class:`~mmbignas.distill.FeatureMSELoss`, :class:`~mmbignas.distill.DenseKLLoss`,
            :class:`~mmbignas.distill.DenseBoxLoss` or a registered loss with the same signature.

    Raises:
        ConfigError: for a job that is not complete; and, before training, for a module that is not in the model or a
            training loop whose iterations do not begin with the largest subnet.
    """

    def __init__(self, jobs: Mapping[str, Mapping[str, Any]]) -> None:
        if not isinstance(jobs, Mapping) or not jobs:
            raise ConfigError(f'DistillHook.jobs: expected a dict of jobs, got {jobs!r}')
        self.jobs = {name: _parse_job(job, f'DistillHook.jobs.{name}') for name, job in jobs.items()}
        self._teacher: Outputs = {}
        self._teacher_iteration = -1

    def before_train(self, runner: Any) -> None:
        """Check the schedule, and begin to watch the named modules."""
        rule = getattr(runner.train_loop, 'rule', None)
        if not isinstance(rule, SandwichRule):
            raise ConfigError(f'DistillHook: train_cfg.type {type(runner.train_loop).__name__} is not allowed; allowed:'
                              ' SandwichTrainLoop, SandwichIterTrainLoop')
        if not rule.max_leads:
            raise ConfigError(f'DistillHook: in-place distillation needs the largest subnet and its students in the '
                              f'same iteration, but train_cfg has sample_subnet_num={rule.sample_subnet_num} and '
                              f'sample_strategy {[choice.name for choice in rule.choices]}; allowed: '
                              "sample_subnet_num of 2 or more with 'max' first")
        names = dict.fromkeys(name for job in self.jobs.values() for name in job.names)
        self._recorder = OutputRecorder(runner.model, list(names), 'DistillHook.jobs.*.mimic_name')

    def before_subnet_forward(self, runner: Any, subnet_pass: SubnetPass) -> None:
        """Record this pass, unless the largest subnet comes a second time."""
        if not subnet_pass.is_max or subnet_pass.index == 0:
            self._recorder.start()

    def after_subnet_forward(self, runner: Any, subnet_pass: SubnetPass, losses: dict[str, Any]) -> None:
        """Keep the teacher's outputs, or add the student's losses.

        Raises:
            ConfigError: for a named module that had no output in this pass.
            RuntimeError: when the teacher's outputs are of another iteration, and so of another batch.
        """
        outputs = self._recorder.stop()
        if subnet_pass.is_max and subnet_pass.index > 0:
            return
        for key, job in self.jobs.items():
            for name in job.names:
                if not outputs.get(name):
                    raise ConfigError(f'DistillHook.jobs.{key}.mimic_name: {name!r} has no output in the pass of '
                                      f'{subnet_pass.name}; allowed: modules that every subnet calls')
        if subnet_pass.is_max:
            self._teacher = {name: [tensor.detach() for tensor in tensors] for name, tensors in outputs.items()}
            self._teacher_iteration = subnet_pass.iteration
            return
        if self._teacher_iteration != subnet_pass.iteration:
            raise RuntimeError(f'the outputs of the largest subnet are those of iteration {self._teacher_iteration}, '
                               f'but {subnet_pass.name} is trained in iteration {subnet_pass.iteration}')
        for name, job in self.jobs.items():
            losses[f'loss_distill_{name}'] = job(outputs, self._teacher, subnet_pass.iteration)

    def after_train_iter(self, runner: Any, batch_idx: int, data_batch: Any = None, outputs: Any = None) -> None:
        """Let go of the teacher's outputs."""
        self._teacher = {}

    def after_train(self, runner: Any) -> None:
        """Take the recorder off the model."""
        self._recorder.remove()


def _parse_job(job: Any, key: str) -> DistillJob:
    if not isinstance(job, Mapping) or set(job) - set(JOB_KEYS) or not {'mimic_name', 'loss'} <= set(job):
        raise ConfigError(f'{key}: expected a dict with mimic_name and loss, optionally loss_weight and '
                          f'warm_up_iters, got {job!r}')
    names = job['mimic_name']
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, Sequence) or not names or any(not isinstance(name, str) for name in names):
        raise ConfigError(f"{key}.mimic_name: {job['mimic_name']!r} is not allowed; allowed: the path of a module, or "
                          'a list of paths')
    warm_up_iters, loss_weight = job.get('warm_up_iters', 0), job.get('loss_weight', 1.)
    for name, value in (('warm_up_iters', warm_up_iters), ('loss_weight', loss_weight)):
        if not isinstance(value, (int, float)) or value < 0:
            raise ConfigError(f'{key}.{name}: {value!r} is not allowed; allowed: numbers from 0')
    return DistillJob(tuple(names), MODELS.build(job['loss']), loss_weight, warm_up_iters)
