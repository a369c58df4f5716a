"""Reading the distillation jobs of a config."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmbignas.distill.adapters import Adapters
from mmbignas.distill.job import IN_PLACE, DistillJob
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS
from mmbignas.utils.rules import Rule, check_keys, integer, list_of, must_be, number, one_of, text

NEEDED = ('mimic_name', 'loss')
OPTIONAL = ('teacher', 'teacher_mimic_name', 'loss_weight', 'warm_up_iters', 'begin', 'end', 'widths', 'replaces')
OF_TEACHER = ('mimic_name', 'loss_weight')
WIDTHS = ('equal', 'first_channels', 'adapter')
MODULES = 'the path of a module, or a list of paths'
FROM_0 = number(0)
NAME = Rule(lambda name: isinstance(name, str) and '/' not in name, "a name without '/'")


def parse_jobs(jobs: Any, key: str, teachers: Sequence[str] = ()) -> dict[str, DistillJob]:
    """Read the jobs of a config.

    Args:
        jobs: name -> ``dict(mimic_name=..., loss=dict(type=...), teacher=..., teacher_mimic_name=..., loss_weight=1.,
            warm_up_iters=0, begin=0, end=None, widths=..., replaces=...)``. ``teacher`` is the name of one, a list of
            names, or a dict of a name and ``dict(mimic_name=..., loss_weight=...)`` for each. See
            :class:`~mmbignas.distill.DistillHook`.
        key: their place in the config.
        teachers: names of the teachers there are, beside the largest subnet.

    Returns:
        dict: name -> job, in the same order. A job with several teachers has an entry for each, ``<job>_<teacher>``.

    Raises:
        ConfigError: for a job that is not complete or has values that are not allowed.
    """
    if not isinstance(jobs, Mapping) or not jobs:
        raise must_be(key, 'a dict of jobs', jobs)
    result: dict[str, DistillJob] = {}
    for name, job in jobs.items():
        NAME.check(name, f'the name of a job in {key}')
        own = _parse_job(job, f'{key}.{name}', teachers)
        for teacher, parsed in own.items():
            log_name = name if len(own) == 1 else f'{name}_{teacher}'
            if log_name in result:
                raise ConfigError(f'{key}.{name} must have another name: loss_distill_{log_name} is the loss of '
                                  'another job')
            result[log_name] = parsed
    return result


def _parse_job(job: Any, key: str, teachers: Sequence[str]) -> dict[str, DistillJob]:
    """The job for each of its teachers."""
    check_keys(job, key, (*NEEDED, *OPTIONAL), NEEDED)
    names = _names(job['mimic_name'], f'{key}.mimic_name', MODULES)
    own = _teachers(job, key, teachers)
    loss, loss_weight = MODELS.build(job['loss']), FROM_0.check(job.get('loss_weight', 1.), f'{key}.loss_weight')
    count = getattr(loss, 'num_modules', None)
    if count is not None and len(names) != count:
        raise must_be(f'{key}.mimic_name', f'{count} module{"s" * (count > 1)} with {type(loss).__name__}', list(names))
    timing = _timing(job, key)
    replaces = _replaces(job, key, loss_weight, timing['warm_up_iters'])
    result = {}
    for teacher, settings in own.items():
        place = f'{key}.teacher.{teacher}' if settings else key
        teacher_names = names
        if teacher != IN_PLACE:
            field = f'{place}.mimic_name' if 'mimic_name' in settings else f'{key}.teacher_mimic_name'
            value = settings.get('mimic_name', job.get('teacher_mimic_name', names))
            teacher_names = _names(value, field, MODULES)
            if len(teacher_names) != len(names):
                raise must_be(field, f'as many modules as mimic_name {list(names)}', list(teacher_names))
        widths = job.get('widths', 'first_channels' if teacher == IN_PLACE else 'equal')
        one_of(WIDTHS).check(widths, f'{key}.widths')
        factor = FROM_0.check(settings.get('loss_weight', 1.), f'{place}.loss_weight')
        result[teacher] = DistillJob(
            key, teacher, names, teacher_names, loss, loss_weight * factor,
            **timing, replaces=replaces, first_channels=widths == 'first_channels',
            adapters=Adapters(key) if widths == 'adapter' else None)
    return result


def _teachers(job: Mapping[str, Any], key: str, teachers: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Name -> settings of each teacher of a job."""
    names = (IN_PLACE, *teachers)
    allowed = f'one of {", ".join(names)}, a list, or a dict of them'
    if 'teacher' not in job and len(teachers) > 1:
        raise must_be(f'{key}.teacher', f'{allowed} where DistillHook.teacher has several', None)
    value = job.get('teacher', [*teachers, IN_PLACE][0])
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Sequence) and all(isinstance(name, str) for name in value):
        value = {name: {} for name in value}
    if not isinstance(value, Mapping) or not value or not set(value) <= set(names):
        raise must_be(f'{key}.teacher', allowed, job['teacher'])
    for name, settings in value.items():
        check_keys(settings, f'{key}.teacher.{name}', OF_TEACHER[1:] if name == IN_PLACE else OF_TEACHER)
    return dict(value)


def _timing(job: Mapping[str, Any], key: str) -> dict[str, Any]:
    """When the loss is there."""
    warm_up_iters = FROM_0.check(job.get('warm_up_iters', 0), f'{key}.warm_up_iters')
    begin = integer(0).check(job.get('begin', 0), f'{key}.begin')
    end = integer(begin + 1).or_none().check(job.get('end'), f'{key}.end')
    return dict(warm_up_iters=warm_up_iters, begin=begin, end=math.inf if end is None else end)


def _replaces(job: Mapping[str, Any], key: str, loss_weight: float, warm_up_iters: float) -> tuple[str, ...]:
    if 'replaces' not in job:
        return ()
    replaces = _names(job['replaces'], f'{key}.replaces', "the name of one of the model's losses, or a list of names")
    if warm_up_iters > 0:
        raise must_be(f'{key}.warm_up_iters', '0 with replaces, for students to have something to learn from',
                      warm_up_iters)
    if loss_weight == 0:
        raise must_be(f'{key}.loss_weight', 'a number > 0 with replaces', loss_weight)
    return replaces


def _names(value: Any, key: str, allowed: str) -> tuple[str, ...]:
    return tuple(list_of(text(), allowed, 1).check([value] if isinstance(value, str) else value, key))
