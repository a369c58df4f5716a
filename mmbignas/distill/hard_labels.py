"""A model's own losses that a distillation job stands in for."""
from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from mmbignas.distill.job import DistillJob
from mmbignas.errors import ConfigError


def check_replaced(losses: Mapping[str, Any], jobs: Iterable[DistillJob]) -> None:
    """Make sure that the model has the losses that the jobs replace, or had them before another job replaced them.

    Args:
        losses: what the model returns in mode ``loss``.
        jobs: the jobs.

    Raises:
        ConfigError: for a name that is not there or, as it has no ``loss`` in it, is not trained on.
    """
    present = [name for name in losses if 'loss' in name]
    for job in jobs:
        for name in job.replaces:
            if name not in present and ('loss' not in name or _aside(name) not in losses):
                raise ConfigError(f"{job.key}.replaces: {name!r} is not one of the model's losses; allowed: "
                                  f'{", ".join(present) or "none, the model has no losses"}')


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
