"""One element of a search space (depth, out_channel, kernel_size, ...): its choices per stage and how it is drawn."""
from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from numbers import Integral, Real
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.space.strategies import Chain, Strategy, Value, Values, Variants, parse_strategy

Choices = tuple[tuple[Value, ...], ...]

INTEGER_ELEMENTS = ('depth', 'out_channel', 'kernel_size', 'group_width')
SPACE_KEYS = ('min', 'max', 'stride', 'dynamic_range')


@dataclass(frozen=True)
class Element:
    """The choices of one element.

    Args:
        name: the element's name, e.g. ``out_channel``.
        choices: ascending choices, one tuple a stage. Of a fixed element, one choice each.
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
        """Whether the element has one value a block rather than one a stage."""
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


def parse_element(name: str, config: Any, num_stages: int, key: str) -> Element:
    """Read one element as it stands in a config.

    Args:
        name: the element's name.
        config: a list (fixed, one value a stage, or one a block: see :class:`~mmbignas.space.ModuleSpace`) or
            ``dict(space=dict(min, max, stride), sample_strategy)`` or ``dict(space=dict(dynamic_range), ...)``.
        num_stages: how many stages the module has.
        key: the element's place in the config, for messages.

    Returns:
        Element: for a fixed per-block list, ``choices`` is empty and ``blocks`` holds the values until the module
        knows its depth.

    Raises:
        ConfigError: naming key, value and what is allowed.
    """
    if isinstance(config, Mapping):
        unknown = set(config) - {'space', 'sample_strategy'}
        if unknown or 'space' not in config:
            raise ConfigError(f'{key}: expected a list or dict(space=..., sample_strategy=...), got {dict(config)}')
        choices = tuple(read_values(name, stage, key) for stage in _parse_space(name, config['space'], num_stages, key))
        strategy = parse_strategy(config.get('sample_strategy', 'stage_wise'), f'{key}.sample_strategy')
        return Element(name, choices, strategy, key)
    values = read_values(name, config, key)
    if len(values) == num_stages:
        return Element(name, tuple((value,) for value in values), None, key)
    if name == 'depth':
        raise ConfigError(f'{key} has {len(values)} values, but there are {num_stages} stages: {list(values)}')
    return Element(name, (), None, key, blocks=values)


def read_values(name: str, values: Any, key: str) -> tuple[Value, ...]:
    """Read a list of values of an element, and refuse what no layer can be built with.

    Args:
        name: the element's name.
        values: what stands in a config or in settings.
        key: where it stands, for messages.

    Returns:
        tuple: plain numbers; whole ones are integers, so that equal values are also written equally.

    Raises:
        ConfigError: naming key, value and what is allowed.
    """
    numbers = _number_list(values, key)
    for value in numbers:
        if value <= 0:
            raise ConfigError(f'{key}: {value} is not allowed, values must be greater than 0')
        if name in INTEGER_ELEMENTS and not isinstance(value, Integral):
            raise ConfigError(f'{key}: {value} is not allowed, {name} takes integers')
        if name == 'kernel_size' and value % 2 == 0:
            raise ConfigError(f'{key}: {value} is not allowed, kernel sizes must be odd')
    return tuple(int(value) if value == int(value) else float(value) for value in numbers)


def _number_list(values: Any, key: str) -> tuple[Value, ...]:
    """A non-empty list of finite numbers as a tuple."""
    if not isinstance(values, Sequence) or isinstance(values, str) or not values:
        raise ConfigError(f'{key}: expected a non-empty list of numbers, got {values!r}')
    for value in values:
        if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(value):
            raise ConfigError(f'{key}: expected numbers, got {value!r} in {list(values)}')
    return tuple(values)


def _parse_space(name: str, space: Any, num_stages: int, key: str) -> Choices:
    """Turn ``min``/``max``/``stride`` or ``dynamic_range`` into ascending choices per stage."""
    if not isinstance(space, Mapping) or set(space) - set(SPACE_KEYS):
        raise ConfigError(f'{key}.space: expected a dict with keys among {list(SPACE_KEYS)}, got {space!r}')
    if 'dynamic_range' in space:
        if set(space) & {'min', 'max', 'stride'}:
            raise ConfigError(f'{key}.space: give dynamic_range or min/max/stride, not both')
        stages = space['dynamic_range']
        if not isinstance(stages, Sequence) or isinstance(stages, str):
            raise ConfigError(f'{key}.space.dynamic_range: expected a list of lists, got {stages!r}')
        _check_length(f'{key}.space.dynamic_range', stages, num_stages)
        ranges = [read_values(name, stage, f'{key}.space.dynamic_range[{i}]') for i, stage in enumerate(stages)]
        return tuple(tuple(sorted(set(stage))) for stage in ranges)
    if 'min' not in space or 'max' not in space:
        raise ConfigError(f'{key}.space: needs min and max, or dynamic_range; got {dict(space)}')
    low, high = (read_values(name, space[end], f'{key}.space.{end}') for end in ('min', 'max'))
    _check_length(f'{key}.space.min', low, num_stages)
    _check_length(f'{key}.space.max', high, num_stages)
    stride = space.get('stride')
    if stride is None or isinstance(stride, (int, float)):
        stride = [stride] * num_stages
    else:
        stride = _number_list(stride, f'{key}.space.stride')
        _check_length(f'{key}.space.stride', stride, num_stages)
    return tuple(_stage_range(*args, stage, key) for stage, args in enumerate(zip(low, high, stride)))


def _check_length(key: str, values: Sequence, num_stages: int) -> None:
    if len(values) != num_stages:
        raise ConfigError(f'{key} has {len(values)} values, but there are {num_stages} stages: {list(values)}')


def _stage_range(low: Value, high: Value, stride: Value | None, stage: int, key: str) -> tuple[Value, ...]:
    """``low, low + stride, ..., high``; exact, also for fractions."""
    if low == high:
        return (low,)
    if low > high:
        raise ConfigError(f'{key}.space: min {low} is greater than max {high} in stage {stage}')
    if stride is None or isinstance(stride, bool) or not stride > 0:
        raise ConfigError(f'{key}.space.stride: stage {stage} goes from {low} to {high} and needs a stride greater '
                          f'than 0, got {stride!r}')
    steps = round((high - low) / stride)
    if abs(low + steps * stride - high) > 1e-9 * abs(high):
        raise ConfigError(f'{key}.space.stride: {stride} does not lead from min {low} to max {high} in stage {stage}; '
                          f'allowed: strides that divide {high - low}')
    values = tuple(round(low + i * stride, 10) for i in range(steps)) + (high,)
    return values
