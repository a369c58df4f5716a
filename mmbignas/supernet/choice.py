"""How a config names subnets: by ``max``, ``min``, ``middle``, ``random``, or by their settings."""
from __future__ import annotations

import random
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.space import SearchSpace, Subnet

NAMED_SUBNETS = ('max', 'min', 'middle', 'random')


@dataclass(frozen=True)
class SubnetChoice:
    """One entry of a list of subnets in a config.

    Args:
        name: what it is called in logs.
        subnet: the subnet; ``None`` for one that is drawn anew each time.
    """

    name: str
    subnet: Subnet | None

    def draw(self, space: SearchSpace, rng: random.Random) -> Subnet:
        """The subnet, drawn from ``space`` if it is a random one."""
        return self.subnet or space.sample(rng)


def parse_choices(choices: Sequence[str | Mapping[str, Any]], space: SearchSpace, key: str) -> list[SubnetChoice]:
    """Read a list of subnets.

    Args:
        choices: each one of ``max``, ``min``, ``middle``, ``random``; or settings; or
            ``dict(name=..., subnet_settings=...)``.
        space: the space that they are subnets of.
        key: the list's place in the config, for messages.

    Returns:
        list: in the same order. Random ones are called ``random0``, ``random1``, ..., settings without a name
        ``fixed0``, ...; a name that comes again gets a number.

    Raises:
        ConfigError: for an unknown name or settings outside the space.
    """
    if isinstance(choices, (str, Mapping)) or not isinstance(choices, Sequence) or not choices:
        raise ConfigError(f'{key}: expected a non-empty list of {", ".join(NAMED_SUBNETS)} or settings, got '
                          f'{choices!r}')
    seen: Counter[str] = Counter()
    result = []
    for index, choice in enumerate(choices):
        name, subnet = _parse_choice(choice, space, f'{key}[{index}]')
        number = seen[name]
        seen[name] += 1
        result.append(SubnetChoice(f'{name}{number}' if number or name in ('random', 'fixed') else name, subnet))
    for name, count in Counter(choice.name for choice in result).items():
        if count > 1:
            raise ConfigError(f'{key}: {name!r} names {count} subnets; allowed: names that differ from each other and '
                              'from the generated ones (random0, fixed0, ...)')
    return result


def _parse_choice(choice: Any, space: SearchSpace, key: str) -> tuple[str, Subnet | None]:
    if isinstance(choice, Mapping):
        name, settings = 'fixed', choice
        if 'subnet_settings' in choice:
            name, settings = choice.get('name', name), choice['subnet_settings']
        try:
            return name, space.canonical(settings)
        except ConfigError as error:
            raise ConfigError(f'{key}: {error}') from None
    if choice not in NAMED_SUBNETS:
        raise ConfigError(f'{key}: {choice!r} is not allowed; allowed: {", ".join(NAMED_SUBNETS)}, or settings')
    return choice, None if choice == 'random' else getattr(space, choice)()
