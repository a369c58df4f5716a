"""One element of a search space (depth, out_channel, kernel_size, ...): its choices per stage and how it is drawn."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from mmbignas.space.strategies import Chain, Strategy, Value, Values, Variants, parse_strategy
from mmbignas.utils.rules import Rule, check_keys, integer, must_be, number

Choices = tuple[tuple[Value, ...], ...]

INTEGER_ELEMENTS = ('depth', 'out_channel', 'kernel_size', 'group_width')
NUMBER, INTEGER = number(above=0), integer(1)
KERNEL = Rule(lambda value: INTEGER.holds(value) and value % 2 == 1, 'an odd integer >= 1')


@dataclass(frozen=True)
class Element:
    """The choices of one element.

    Args:
        name: the element's name, e.g. ``out_channel``.
        choices: ascending choices, one tuple per stage. A fixed element has one choice in each.
        strategy: how the element is drawn; ``None`` for a fixed element.
        key: where the element stands in the config; error messages begin with it.
        blocks: the values of a fixed element that was given per block, else ``None``.
    """

    name: str
    choices: Choices
    strategy: Strategy | None = None
    key: str = field(default='', compare=False)
    blocks: tuple[Value, ...] | None = None

    @property
    def searched(self) -> bool:
        """Whether there is something to choose in some stage."""
        return self.strategy is not None and any(len(stage) > 1 for stage in self.choices)

    @property
    def per_block(self) -> bool:
        """Whether the element has one value per block rather than one per stage."""
        return self.blocks is not None or (self.strategy is not None and self.strategy.per_block)

    @property
    def follows_depth(self) -> bool:
        """Whether what can be drawn depends on the depth that was drawn."""
        return self.name != 'depth' and self.strategy is not None and self.strategy.follows_depth

    def variants(self, depth: Values | None = None, depth_choices: Choices | None = None) -> Variants:
        """The set of values that can be drawn.

        Args:
            depth: blocks per stage; ``None`` where the element does not follow the depth.
            depth_choices: the choices that the depth was drawn from.
        """
        if self.strategy is not None:
            return self.strategy.variants(self.choices, depth, depth_choices)
        if self.blocks is not None:
            return Chain([(value,) for value in self.blocks])
        return Chain(self.choices)


def parse_element(name: str, config: Any, num_stages: int, key: str, least_depth: int = 1) -> Element:
    """Read one element as it stands in a config.

    Args:
        name: the element's name.
        config: a list (fixed, one value per stage or per block: see :class:`~mmbignas.space.ModuleSpace`) or
            ``dict(space=dict(min, max, stride), sample_strategy)`` or ``dict(space=dict(dynamic_range), ...)``.
        num_stages: how many stages the module has.
        key: the element's place in the config, for messages.
        least_depth: 0 where a stage may have no block.

    Returns:
        Element: for a fixed per-block list, ``choices`` is empty and ``blocks`` holds the values until the module
        knows its depth.

    Raises:
        ConfigError: naming key, value and what is allowed.
    """
    if isinstance(config, Mapping):
        check_keys(config, key, ('space', 'sample_strategy'), ('space',))
        choices = tuple(read_values(name, stage, key, least_depth)
                        for stage in _parse_space(name, config['space'], num_stages, key, least_depth))
        strategy = parse_strategy(config.get('sample_strategy', 'stage_wise'), f'{key}.sample_strategy')
        return Element(name, choices, strategy, key)
    values = read_values(name, config, key, least_depth)
    if len(values) == num_stages:
        return Element(name, tuple((value,) for value in values), None, key)
    if name == 'depth':
        raise must_be(key, f'a list of one value per stage ({num_stages})', config)
    return Element(name, (), None, key, blocks=values)


def read_values(name: str, values: Any, key: str, least_depth: int = 1) -> tuple[Value, ...]:
    """Read a list of values of an element, and refuse what no layer can be built with.

    Whole numbers become integers, so that equal values are also written equally. ``key`` names the list in messages,
    ``least_depth`` is 0 where a stage may have no block.

    Raises:
        ConfigError: naming key, value and what is allowed.
    """
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise must_be(key, 'a non-empty list of numbers', values)
    rule = KERNEL if name == 'kernel_size' else integer(least_depth) if name == 'depth' else (
        INTEGER if name in INTEGER_ELEMENTS else NUMBER)
    for index, value in enumerate(values):
        if not rule.holds(value):
            raise must_be(f'{key}[{index}]', rule.allowed, value)
    return tuple(int(value) if value == int(value) else float(value) for value in values)


def _parse_space(name: str, space: Any, num_stages: int, key: str, least_depth: int) -> Choices:
    """Turn ``min``/``max``/``stride`` or ``dynamic_range`` into ascending choices per stage."""
    keys = set(space) if isinstance(space, Mapping) else set()
    if keys == {'dynamic_range'}:
        stages = _per_stage(space['dynamic_range'], num_stages, f'{key}.space.dynamic_range', 'list')
        ranges = [read_values(name, stage, f'{key}.space.dynamic_range[{i}]', least_depth)
                  for i, stage in enumerate(stages)]
        return tuple(tuple(sorted(set(stage))) for stage in ranges)
    if not {'min', 'max'} <= keys <= {'min', 'max', 'stride'}:
        raise must_be(f'{key}.space', 'dict(min=..., max=..., stride=...) or dict(dynamic_range=...)', space)
    low, high = (read_values(name, _per_stage(space[end], num_stages, f'{key}.space.{end}'), f'{key}.space.{end}',
                             least_depth) for end in ('min', 'max'))
    stride = space.get('stride')
    if isinstance(stride, Sequence):
        _per_stage(stride, num_stages, f'{key}.space.stride', 'number')
    else:
        stride = [stride] * num_stages
    return tuple(_stage_range(*args, stage, key) for stage, args in enumerate(zip(low, high, stride)))


def _per_stage(values: Any, num_stages: int, key: str, what: str = 'value') -> Sequence[Any]:
    if not isinstance(values, Sequence) or isinstance(values, str) or len(values) != num_stages:
        raise must_be(key, f'a list of one {what} per stage ({num_stages})', values)
    return values


def _stage_range(low: Value, high: Value, stride: Any, stage: int, key: str) -> tuple[Value, ...]:
    """``low, low + stride, ..., high``; exact, also for fractions."""
    if low == high:
        return (low,)
    if low > high:
        raise must_be(f'{key}.space.min', f'<= max, {high}, in stage {stage}', low)
    if not NUMBER.holds(stride):
        raise must_be(f'{key}.space.stride', f'{NUMBER.allowed} in stage {stage}, from {low} to {high}', stride)
    steps = round((high - low) / stride)
    if abs(low + steps * stride - high) > 1e-9 * abs(high):
        raise must_be(f'{key}.space.stride', f'a divisor of {high - low:g} in stage {stage}, from {low} to {high}',
                      stride)
    return tuple(round(low + i * stride, 10) for i in range(steps)) + (high,)
