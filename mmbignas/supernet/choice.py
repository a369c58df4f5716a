"""How configs and tools name subnets: ``max``, ``min``, ``middle``, ``random``, a number, a file, or settings."""
from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.space import SUBNET_SUFFIXES, SearchSpace, Subnet, load_subnet
from mmbignas.utils.rules import must_be

NAMED_SUBNETS = ('max', 'min', 'middle', 'random')


@dataclass(frozen=True)
class SubnetChoice:
    """One entry of a list of subnets in a config.

    Args:
        name: what it is called in logs.
        subnet: the subnet; ``None`` for one that is drawn each time.
        drawn: how that is drawn: ``random``, or another name that the list may have; empty where there is a subnet.
    """

    name: str
    subnet: Subnet | None
    drawn: str = ''

    def draw(self, space: SearchSpace, rng: random.Random) -> Subnet:
        """The subnet, drawn from ``space`` if it is a random one."""
        return self.subnet or space.sample(rng)


def parse_choices(choices: Sequence[str | int | Mapping[str, Any]], space: SearchSpace, key: str, *,
                  typed: bool = False, drawn: Sequence[str] = ()) -> list[SubnetChoice]:
    """Read a list of subnets.

    Args:
        choices: each one of ``max``, ``min``, ``middle``, ``random``; or the number of a subnet in ``space``, also as
            a string; or the path of a ``.json``, ``.yaml`` or ``.yml`` file, see
            :func:`~mmbignas.space.load_subnet`; or settings; or ``dict(name=..., subnet_settings=...)``.
        space: the space that they are subnets of.
        key: the list's place in the config, or the option of a tool, for messages.
        typed: whether they were typed on a command line; then messages do not offer settings.
        drawn: names beside ``random`` of subnets that the caller draws each time.

    Returns:
        list: in the same order. Random ones are called ``random0``, ``random1``, ..., settings without a name
        ``fixed0``, ..., number 123 ``subnet123``, those from a file like the file without its suffix; a repeated name
        gets a number.

    Raises:
        ConfigError: for an unknown name, a number or settings outside the space, or a file that cannot be read.
    """
    names = (*NAMED_SUBNETS, *drawn)
    if isinstance(choices, (str, Mapping)) or not isinstance(choices, Sequence) or not choices:
        raise must_be(key, f'a non-empty list of {", ".join(names)}, numbers, files or settings', choices)
    seen: Counter[str] = Counter()
    result = []
    for index, choice in enumerate(choices):
        name, subnet = _parse_choice(choice, space, f'{key}[{index}]', typed, names)
        way = name if subnet is None else ''
        number = seen[name]
        seen[name] += 1
        if number or way or name in ('random', 'fixed'):
            name = f'{name}_{number}' if str(name)[-1:].isdigit() else f'{name}{number}'
        result.append(SubnetChoice(name, subnet, way))
    for name, count in Counter(choice.name for choice in result).items():
        if count > 1:
            raise ConfigError(f'{key}: {name!r} names {count} subnets; give names that differ from each other and from '
                              'the generated ones (random0, fixed0, ...)')
    return result


def parse_choice(choice: str, space: SearchSpace, key: str) -> SubnetChoice:
    """Read one subnet that was typed as an option, as :func:`parse_choices` does; ``random`` gets no number."""
    name, subnet = _parse_choice(choice, space, key, True, NAMED_SUBNETS)
    return SubnetChoice(name, subnet, name if subnet is None else '')


def _parse_choice(choice: Any, space: SearchSpace, key: str, typed: bool,
                  names: Sequence[str]) -> tuple[str, Subnet | None]:
    if isinstance(choice, str) and choice in names:
        return choice, getattr(space, choice)() if choice in ('max', 'min', 'middle') else None
    if isinstance(choice, str) and re.fullmatch('-?[0-9]{1,4000}', choice):
        choice = int(choice)
    try:
        if isinstance(choice, Mapping):
            if 'subnet_settings' in choice:
                return choice.get('name', 'fixed'), space.canonical(choice['subnet_settings'])
            return 'fixed', space.canonical(choice)
        if isinstance(choice, int) and not isinstance(choice, bool):
            return f'subnet{choice}', space[choice]
        if isinstance(choice, str) and choice.endswith(SUBNET_SUFFIXES):
            return Path(choice).stem, load_subnet(choice, space)
    except ConfigError as error:
        raise ConfigError(f'{key}: {error}') from None
    allowed = (f'{", ".join(names)}, a number from 0 to {space.size - 1}, or a file that ends in '
               f'{", ".join(SUBNET_SUFFIXES)}')
    raise must_be(key, allowed if typed else f'{allowed}, or settings', choice)
