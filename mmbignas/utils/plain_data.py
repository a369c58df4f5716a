"""Plain data in JSON and YAML: read within bounds, so that no file can crash or stop what reads it.

All that comes out is what JSON can say: dicts with strings as keys, lists, strings, finite numbers, booleans and
``None``. Whoever reads a file with :func:`read_data`, or a line with :func:`parse_json`, has to expect nothing else.
"""
from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from mmbignas.errors import ConfigError
from mmbignas.utils.rules import in_one_line, shown

YAML_SUFFIXES = ('.yaml', '.yml')
MAX_JSON, MAX_YAML = 2**26, 2**18  # bytes; either takes a second or two at most
MAX_DEPTH, MAX_ENTRIES = 50, 10**6


def read_data(path: str | Path, what: str = 'file') -> Any:
    """Read plain data from a file.

    Args:
        path: YAML where it ends in ``.yaml`` or ``.yml``, else JSON.
        what: what kind of file it is, for messages.

    Raises:
        ConfigError: for a file that cannot be read, is not valid, or is larger, deeper or longer than any that this
            package writes or people do.
    """
    is_yaml = Path(path).suffix in YAML_SUFFIXES
    most = MAX_YAML if is_yaml else MAX_JSON
    try:
        with Path(path).open('rb') as file:
            raw = file.read(most + 1)
    except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
        reason = getattr(error, 'strerror', None) or in_one_line(error)
        raise ConfigError(f'{path}: cannot be read ({reason}); give an existing {what}') from error
    if len(raw) > most:
        raise ConfigError(f'{path}: must be at most {most:,} bytes long; give another {what}')
    try:
        return parse_yaml(raw) if is_yaml else parse_json(raw)
    except ConfigError as error:
        raise ConfigError(f'{path}: is not valid {"YAML" if is_yaml else "JSON"} ({error}); give another '
                          f'{what}') from error


def parse_json(text: str | bytes) -> Any:
    """Plain data from JSON.

    Raises:
        ConfigError: for anything else, such as ``NaN``, numbers of thousands of digits, or brackets by the thousand.
    """
    try:
        content = json.loads(text)
    except RecursionError:
        raise ConfigError(f'it must be nested at most {MAX_DEPTH} deep') from None
    except ValueError as error:
        raise ConfigError(in_one_line(error)) from error
    return check_plain(content)


def parse_yaml(text: str | bytes) -> Any:
    """Plain data from YAML, whose aliases may stand for no more than could be written out.

    Raises:
        ConfigError: for anything else, such as dates, which have to be written as strings.
    """
    try:
        content = yaml.load(text, _Loader)
    except ConfigError:
        raise
    except RecursionError:
        raise ConfigError(f'it must be nested at most {MAX_DEPTH} deep') from None
    except Exception as error:  # what Python raises for values that are not of the type that their tag says
        raise ConfigError(in_one_line(error)) from error
    return check_plain(content)


def check_plain(content: Any) -> Any:
    """Return data that is plain, and neither too deep nor too long.

    Raises:
        ConfigError: naming the first key or value that is not.
    """
    level, depth, count = [content], 0, 0
    while level:
        depth += 1
        if depth > MAX_DEPTH:
            raise ConfigError(f'it must be nested at most {MAX_DEPTH} deep')
        below: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                for key in value:
                    if not isinstance(key, str):
                        raise ConfigError(f'a key must be a string, got {shown(key)}')
                below += value.values()
            elif isinstance(value, list):
                below += value
            elif not (value is None or isinstance(value, (str, int)) or isinstance(value, float)
                      and math.isfinite(value)):
                raise ConfigError(f'a value must be a finite number, a string, a boolean, null, a list or a dict, got '
                                  f'{shown(value)}')
            if count + len(below) > MAX_ENTRIES:
                raise ConfigError(f'it must have at most {MAX_ENTRIES:,} entries')
        count += len(below)
        level = below
    return content


class _Loader(yaml.SafeLoader):
    """Counts what aliases stand for while it reads: nine of nine of nine ... are not even built."""

    def __init__(self, stream: Any) -> None:
        super().__init__(stream)
        self._sizes: dict[yaml.Node, int] = {}

    def compose_node(self, parent: Any, index: Any) -> Any:
        is_alias = self.check_event(yaml.AliasEvent)
        node = super().compose_node(parent, index)
        if is_alias:
            if node not in self._sizes:
                raise ConfigError('an alias must not stand for what it is part of')
            return node
        parts = [] if isinstance(node, yaml.ScalarNode) else node.value
        if isinstance(node, yaml.MappingNode):
            parts = [part for pair in parts for part in pair]
        size = self._sizes[node] = 1 + sum(self._sizes[part] for part in parts)
        if size > MAX_ENTRIES:
            raise ConfigError(f'it must have at most {MAX_ENTRIES:,} entries')
        return node
