"""Reading the distillation jobs of a config."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from mmbignas.distill.adapters import Adapters
from mmbignas.distill.job import IN_PLACE, DistillJob
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS

NEEDED = ('mimic_name', 'loss')
OPTIONAL = ('teacher', 'teacher_mimic_name', 'loss_weight', 'warm_up_iters', 'begin', 'end', 'widths', 'replaces')
OF_TEACHER = ('mimic_name', 'loss_weight')
WIDTHS = ('equal', 'first_channels', 'adapter')
MODULES = 'the path of a module, or a list of paths'


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
        dict: name -> job, in the same order. A job with several teachers has an entry for each,
        ``<job>_<teacher>``.

    Raises:
        ConfigError: for a job that is not complete or has values that are not allowed.
    """
    if not isinstance(jobs, Mapping) or not jobs:
        raise ConfigError(f'{key}: expected a dict of jobs, got {jobs!r}')
    result: dict[str, DistillJob] = {}
    for name, job in jobs.items():
        if not isinstance(name, str) or '/' in name:
            raise ConfigError(f"{key}: {name!r} is not allowed as the name of a job; allowed: names without '/'")
        own = _parse_job(job, f'{key}.{name}', teachers)
        for teacher, parsed in own.items():
            log_name = name if len(own) == 1 else f'{name}_{teacher}'
            if log_name in result:
                raise ConfigError(f'{key}.{name}: its losses would have the name of those of another job, '
                                  f'loss_distill_{log_name}; allowed: other names')
            result[log_name] = parsed
    return result


def _parse_job(job: Any, key: str, teachers: Sequence[str]) -> dict[str, DistillJob]:
    """The job for each of its teachers."""
    if not isinstance(job, Mapping) or set(job) - {*NEEDED, *OPTIONAL} or not set(NEEDED) <= set(job):
        raise ConfigError(f'{key}: expected a dict with {" and ".join(NEEDED)}, optionally {", ".join(OPTIONAL)}, got '
                          f'{job!r}')
    names = _names(job['mimic_name'], f'{key}.mimic_name', MODULES)
    own = _teachers(job, key, teachers)
    if 'teacher_mimic_name' in job and all(name == IN_PLACE for name in own):
        raise ConfigError(f'{key}.teacher_mimic_name: {job["teacher_mimic_name"]!r} is not allowed without '
                          'DistillHook.teacher: the largest subnet has the same modules')
    loss, loss_weight = MODELS.build(job['loss']), _number(job, 'loss_weight', 1., key)
    count = getattr(loss, 'num_modules', None)
    if count is not None and len(names) != count:
        raise ConfigError(f'{key}.mimic_name: {list(names)} is not allowed with {type(loss).__name__}; allowed: '
                          f'{count} module{"s" * (count > 1)}')
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
                raise ConfigError(f'{field}: {list(teacher_names)} is not allowed with mimic_name {list(names)}; '
                                  'allowed: as many modules')
        widths = job.get('widths', 'first_channels' if teacher == IN_PLACE else 'equal')
        if widths not in WIDTHS:
            raise ConfigError(f'{key}.widths: {widths!r} is not allowed; allowed: {", ".join(WIDTHS)}')
        result[teacher] = DistillJob(
            key, teacher, names, teacher_names, loss, loss_weight * _number(settings, 'loss_weight', 1., place),
            **timing, replaces=replaces, first_channels=widths == 'first_channels',
            adapters=Adapters(key) if widths == 'adapter' else None)
    return result


def _teachers(job: Mapping[str, Any], key: str, teachers: Sequence[str]) -> dict[str, Mapping[str, Any]]:
    """Name -> settings of each teacher of a job."""
    if 'teacher' not in job and len(teachers) > 1:
        raise ConfigError(f'{key}.teacher: missing, with several DistillHook.teacher; allowed: '
                          f'{", ".join([IN_PLACE, *teachers])}, a list, or a dict of them')
    value = job.get('teacher', [*teachers, IN_PLACE][0])
    if isinstance(value, str):
        value = [value]
    if isinstance(value, Sequence):
        value = {name: {} for name in value if isinstance(name, str)} if len(value) == len({*map(str, value)}) else None
    if not isinstance(value, Mapping) or not value or not set(value) <= {IN_PLACE, *teachers}:
        raise ConfigError(f'{key}.teacher: {job["teacher"]!r} is not allowed; allowed: '
                          f'{", ".join([IN_PLACE, *teachers])}, a list, or a dict of them')
    for name, settings in value.items():
        allowed = OF_TEACHER[1:] if name == IN_PLACE else OF_TEACHER
        if not isinstance(settings, Mapping) or not set(settings) <= set(allowed):
            raise ConfigError(f'{key}.teacher.{name}: {settings!r} is not allowed; allowed: a dict with '
                              f'{" and ".join(allowed)}')
    return dict(value)


def _timing(job: Mapping[str, Any], key: str) -> dict[str, Any]:
    """When the loss is there."""
    warm_up_iters = _number(job, 'warm_up_iters', 0, key)
    begin, end = job.get('begin', 0), job.get('end')
    if isinstance(begin, bool) or not isinstance(begin, int) or begin < 0:
        raise ConfigError(f'{key}.begin: {begin!r} is not allowed; allowed: the number of an iteration, from 0')
    if end is not None and (isinstance(end, bool) or not isinstance(end, int) or end <= begin):
        raise ConfigError(f'{key}.end: {end!r} is not allowed; allowed: the number of an iteration after begin, '
                          f'{begin}, or None')
    return dict(warm_up_iters=warm_up_iters, begin=begin, end=math.inf if end is None else end)


def _replaces(job: Mapping[str, Any], key: str, loss_weight: float, warm_up_iters: float) -> tuple[str, ...]:
    if 'replaces' not in job:
        return ()
    replaces = _names(job['replaces'], f'{key}.replaces', "the name of one of the model's losses, or a list of names")
    for name, value, wrong, allowed in (
            ('warm_up_iters', warm_up_iters, warm_up_iters > 0, '0'),
            ('loss_weight', loss_weight, loss_weight == 0, 'numbers greater than 0')):
        if wrong:
            raise ConfigError(f'{key}.{name}: {value!r} is not allowed with replaces {list(replaces)}: students would '
                              f'have nothing to learn from; allowed: {allowed}')
    return replaces


def _number(settings: Mapping[str, Any], name: str, default: float, key: str) -> float:
    value = settings.get(name, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 <= value < math.inf:
        raise ConfigError(f'{key}.{name}: {value!r} is not allowed; allowed: numbers from 0')
    return value


def _names(value: Any, key: str, allowed: str) -> tuple[str, ...]:
    names = [value] if isinstance(value, str) else value
    if not isinstance(names, Sequence) or not names or any(not isinstance(name, str) for name in names):
        raise ConfigError(f'{key}: {value!r} is not allowed; allowed: {allowed}')
    return tuple(names)
