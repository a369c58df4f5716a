"""Checks of a config that come before anything slow."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from mmbignas.errors import ConfigError


def type_name(cfg: Mapping[str, Any]) -> str:
    """The class name in a config whose ``type`` is a name, with or without scope, or a class; '' without one."""
    kind = cfg.get('type', '')
    return str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1]


@contextmanager
def errors_below(key: str) -> Iterator[None]:
    """Put the place of a dict in the config before the keys that errors name."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f'{key}.{error}') from None


def check_count(count: Any, key: str, least: int = 1) -> int:
    """A number of things, if it is one.

    Args:
        count: what the config says.
        key: its place in the config.
        least: the smallest that is allowed.

    Raises:
        ConfigError: for anything but integers from ``least``.
    """
    if isinstance(count, bool) or not isinstance(count, int) or count < least:
        raise ConfigError(f'{key}: {count!r} is not allowed; allowed: integers from {least}')
    return count


def check_choice(value: Any, choices: Sequence[Any], key: str) -> Any:
    """One of several values, if it is.

    Args:
        value: what the config says.
        choices: what is allowed.
        key: its place in the config.

    Raises:
        ConfigError: for anything else, also where it is equal but of another type, as 1 and True are.
    """
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ConfigError(f'{key}: {value!r} is not allowed; allowed: {", ".join(map(str, choices))}')
    return value


def check_metric_name(name: Any, key: str) -> str | None:
    """The name of a metric, or ``None``, if it is.

    Args:
        name: what the config says.
        key: its place in the config.

    Raises:
        ConfigError: for anything else.
    """
    if name is not None and not isinstance(name, str):
        raise ConfigError(f"{key}: {name!r} is not allowed; allowed: the name of a metric, such as 'coco/bbox_mAP', or "
                          'None')
    return name
