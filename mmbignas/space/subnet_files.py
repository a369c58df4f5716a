"""A subnet in a file."""
from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml  # type: ignore[import-untyped]

from mmbignas.errors import ConfigError
from mmbignas.space.search_space import SearchSpace
from mmbignas.space.subnet import Subnet
from mmbignas.utils.files import write_file
from mmbignas.utils.plain_data import YAML_SUFFIXES, read_data
from mmbignas.utils.rules import one_of

SUBNET_SUFFIXES = ('.json', *YAML_SUFFIXES)


def save_subnet(subnet: Subnet, path: str | Path, **info: Any) -> None:
    """Write a subnet to a file that :func:`load_subnet` reads.

    Args:
        subnet: the subnet.
        path: ``.json``, ``.yaml`` or ``.yml``. The file appears when it is complete.
        info: what else to write beside ``subnet_settings``, e.g. its MACs; plain numbers, strings, lists and dicts.

    Raises:
        ConfigError: for another suffix, or a file that cannot be written.
    """
    path = _checked(path)
    content = {'subnet_settings': subnet.to_dict(), **info}
    if path.suffix == '.json':
        text = json.dumps(content, indent=2) + '\n'
    else:
        text = yaml.safe_dump(content, sort_keys=False, default_flow_style=None)
    write_file(path, text.encode())


def json_number(number: int) -> int | str:
    """The number of a subnet as every JSON reader keeps it: a string beyond 2^53, where some lose digits."""
    return number if number <= 2**53 else str(number)


def load_subnet(path: str | Path, space: SearchSpace) -> Subnet:
    """Read a subnet from a file.

    Args:
        path: ``.json``, ``.yaml`` or ``.yml``, with settings or a dict that has them as ``subnet_settings``, such as
            a line of ``subnets_val.jsonl``.
        space: the space that it is a subnet of.

    Raises:
        ConfigError: for another suffix, a file that cannot be read, or settings outside the space.
    """
    path = _checked(path)
    content = read_data(path)
    if isinstance(content, Mapping) and 'subnet_settings' in content:
        content = content['subnet_settings']
    try:
        return space.canonical(content)
    except ConfigError as error:
        raise ConfigError(f'{path}: {error}') from None


def _checked(path: str | Path) -> Path:
    path = Path(path)
    one_of(SUBNET_SUFFIXES).check(path.suffix, f'{path}: the suffix')
    return path
