"""A model's own losses that a distillation job stands in for."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmbignas.distill.job import DistillJob
from mmbignas.errors import ConfigError


def check_replaced(losses: Mapping[str, Any], jobs: Mapping[str, DistillJob], key: str) -> None:
    """Make sure that the model has the losses that the jobs replace.

    Args:
        losses: what the model returns in mode ``loss``.
        jobs: name -> job.
        key: the jobs' place in the config.

    Raises:
        ConfigError: for a name that is not there or, as it has no ``loss`` in it, is not trained on.
    """
    present = [name for name in losses if 'loss' in name]
    for job_name, job in jobs.items():
        for name in job.replaces:
            if name not in present:
                raise ConfigError(f"{key}.{job_name}.replaces: {name!r} is not one of the model's losses; allowed: "
                                  f'{", ".join(present) or "none, the model has no losses"}')


def set_aside(losses: dict[str, Any], jobs: Mapping[str, DistillJob], key: str) -> None:
    """Let a student's replaced losses stay in the log, but not be trained on.

    MMEngine trains on the sum of all entries with ``loss`` in their name. In the names of those that are replaced,
    ``hard_label`` takes its place: ``loss_cls`` becomes ``hard_label_cls``.

    Args:
        losses: what the model returns in mode ``loss``, tensors or lists of tensors; changed.
        jobs: name -> job.
        key: the jobs' place in the config.

    Raises:
        ConfigError: see :func:`check_replaced`.
    """
    check_replaced(losses, jobs, key)
    for name in dict.fromkeys(name for job in jobs.values() for name in job.replaces):
        value = losses.pop(name)
        losses[name.replace('loss', 'hard_label')] = (
            [own.detach() for own in value] if isinstance(value, list) else value.detach())
