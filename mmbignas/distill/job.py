"""A distillation job: the loss between the outputs of named modules of a student and a teacher."""
from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmbignas.distill.adapters import Adapters
from mmbignas.distill.recorder import Outputs
from mmbignas.errors import ConfigError
from mmbignas.utils.rules import must_be

IN_PLACE = 'max'


@dataclass(frozen=True)
class DistillJob:
    """Which modules are compared, by which loss, with which weight, and when.

    Args:
        key: its place in the config, for messages.
        teacher: name of the teacher; :data:`IN_PLACE` for the largest subnet.
        names: paths of the student's modules.
        teacher_names: paths of the teacher's modules, one for each of the student's.
        loss: see :mod:`mmbignas.distill.recorder`.
        loss_weight: factor of the loss.
        warm_up_iters: number of iterations over which the factor grows linearly from 0.
        begin: the first iteration with this loss.
        end: the first one without it again.
        replaces: names of the model's own losses that students are not trained on.
        first_channels: compare the channels that both have, where the numbers differ.
        adapters: trained layers that bring the student's outputs to the teacher's width; ``None`` for none.
    """

    key: str
    teacher: str
    names: tuple[str, ...]
    teacher_names: tuple[str, ...]
    loss: nn.Module
    loss_weight: float = 1.
    warm_up_iters: int = 0
    begin: int = 0
    end: float = math.inf
    replaces: tuple[str, ...] = ()
    first_channels: bool = False
    adapters: Adapters | None = None

    def active(self, iteration: int) -> bool:
        """Whether an iteration has this loss."""
        return self.begin <= iteration < self.end

    def __call__(self, student: Outputs, teacher: Outputs, iteration: int, data_samples: Any = None) -> Tensor:
        """The weighted loss in an iteration.

        Args:
            student: outputs of :attr:`names`.
            teacher: outputs of :attr:`teacher_names`.
            iteration: number of the iteration.
            data_samples: the batch's, for losses with ``needs_data_samples``.

        Raises:
            ConfigError: for outputs that cannot be compared one by one.
        """
        if torch.is_grad_enabled() and not any(x.requires_grad for name in self.names for x in student[name]):
            raise must_be(f'{self.key}.mimic_name', 'modules whose outputs have gradients: not frozen, and not within '
                          "those that MMDetection's with_cp or MMEngine's activation_checkpointing computes again",
                          list(self.names))
        ours, theirs = self._matched(student, teacher)
        ramp = min(1., (iteration - self.begin) / self.warm_up_iters) if self.warm_up_iters else 1.
        more = dict(data_samples=data_samples) if getattr(self.loss, 'needs_data_samples', False) else {}
        return self.loss(ours, theirs, **more) * (self.loss_weight * ramp)

    def _matched(self, student: Outputs, teacher: Outputs) -> tuple[list[list[Tensor]], list[list[Tensor]]]:
        """The outputs of all modules, brought to the same widths."""
        ours: list[list[Tensor]] = []
        theirs: list[list[Tensor]] = []
        for index, (name, teacher_name) in enumerate(zip(self.names, self.teacher_names, strict=True)):
            xs, ys = student[name], teacher[teacher_name]
            if self.adapters is not None and len(xs) == len(ys):
                xs = self.adapters(index, xs)
            if self.first_channels:
                widths = [min(x.shape[1], y.shape[1]) for x, y in zip(xs, ys)]
                xs, ys = ([own[:, :width] for own, width in zip(tensors, widths)] if len(xs) == len(ys) else tensors
                          for tensors in (xs, ys))
            shapes = [[tuple(own.shape) for own in tensors] for tensors in (xs, ys)]
            if shapes[0] != shapes[1]:
                raise ConfigError(f'{self.key}.mimic_name must be modules with outputs of the same shapes, or, where '
                                  "only the channels differ, with widths='first_channels' or 'adapter': "
                                  f"{name!r} puts out {_differing(*shapes)} of the teacher's {teacher_name!r}")
            ours.append(xs)
            theirs.append(ys)
        return ours, theirs


def check_scores(model: nn.Module, jobs: Iterable[DistillJob], field: str = 'mimic_name') -> None:
    """Make sure that losses of independent scores are given no logits of a softmax.

    Args:
        model: the network with the modules.
        jobs: the jobs.
        field: ``mimic_name``, or ``teacher_mimic_name`` for the teacher's modules.

    Raises:
        ConfigError: for a loss with ``sigmoid_scores`` and a module of a head that says by ``use_sigmoid_cls`` that
            its scores are a softmax.
    """
    modules = dict(model.named_modules())
    for job in jobs:
        for name in (job.names if field == 'mimic_name' else job.teacher_names) if hasattr(
                job.loss, 'sigmoid_scores') else ():
            parts = name.split('.')
            heads = ['.'.join(parts[:end]) for end in range(len(parts), 0, -1)]
            head = next((own for own in heads if hasattr(modules.get(own), 'use_sigmoid_cls')), None)
            if head is not None and not modules[head].use_sigmoid_cls:
                raise must_be(f'{job.key}.loss', f'a loss for scores of a softmax, which those of {head} are '
                              f'({field}={name!r}; or loss_cls=dict(..., use_sigmoid=True))', type(job.loss).__name__)


def places(jobs: Iterable[DistillJob], field: str) -> dict[str, str]:
    """Where the modules of jobs stand in the config.

    Args:
        jobs: the jobs.
        field: ``mimic_name``, or ``teacher_mimic_name`` for the teacher's modules.

    Returns:
        dict: path of a module -> place of the first job that has it.
    """
    found: dict[str, str] = {}
    for job in jobs:
        for module in job.names if field == 'mimic_name' else job.teacher_names:
            found.setdefault(module, f'{job.key}.{field}')
    return found


def check_outputs(outputs: Outputs, jobs: Iterable[DistillJob], field: str, where: str = 'a forward pass') -> None:
    """Make sure that the modules that jobs name had outputs.

    Args:
        outputs: what was recorded.
        jobs: the jobs.
        field: ``mimic_name`` or ``teacher_mimic_name``.
        where: the pass, for the message.

    Raises:
        ConfigError: for a module without.
    """
    for name, key in places(jobs, field).items():
        if not outputs.get(name):
            raise ConfigError(f'{key} must be modules that every forward pass calls: {name!r} has no output in {where}')


def _differing(ours: Sequence[tuple[int, ...]], theirs: Sequence[tuple[int, ...]]) -> str:
    """The first shapes that differ, or the numbers of outputs."""
    if len(ours) != len(theirs):
        return f'{len(ours)} tensors instead of the {len(theirs)}'
    return next(f'{own} instead of the {other}' for own, other in zip(ours, theirs) if own != other)


def check_replaced(losses: Mapping[str, Any], jobs: Iterable[DistillJob]) -> None:
    """Make sure that the model has the losses that the jobs replace, or had them before another job replaced them.

    Raises:
        ConfigError: for a name that is not there or, as it has no ``loss`` in it, is not trained on.
    """
    present = [name for name in losses if 'loss' in name]
    for job in jobs:
        for name in job.replaces:
            if name not in present and ('loss' not in name or _aside(name) not in losses):
                names = ', '.join(present) or 'of which there are none'
                raise must_be(f'{job.key}.replaces', f"one of the model's losses, {names}", name)


def set_aside(losses: dict[str, Any], jobs: Iterable[DistillJob]) -> None:
    """Let a student's replaced losses stay in the log, but not be trained on.

    MMEngine trains on the sum of all entries with ``loss`` in their name. In the names of those that are replaced,
    ``hard_label`` takes its place: ``loss_cls`` becomes ``hard_label_cls``.

    Args:
        losses: what the model returns in mode ``loss``, tensors or lists of tensors; changed.
        jobs: the jobs of the iteration.

    Raises:
        ConfigError: see :func:`check_replaced`.
    """
    jobs = list(jobs)
    check_replaced(losses, jobs)
    for name in {name: None for job in jobs for name in job.replaces if name in losses}:
        value = losses.pop(name)
        losses[_aside(name)] = [own.detach() for own in value] if isinstance(value, list) else value.detach()


def _aside(name: str) -> str:
    return name.replace('loss', 'hard_label')
