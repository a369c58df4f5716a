"""Rules for options: what a value must be, and the one form of message when it is something else."""
from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from numbers import Integral, Real
from reprlib import Repr
from typing import Any

from mmbignas.errors import ConfigError

LONGEST = 400  # characters of a value in a message
NAMES = 8  # in a message about many of them


class _Shortened(Repr):
    """What messages show of a value."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4  # each level multiplies what is shown, and what that takes
        self.maxstring = self.maxother = 120
        self.maxdict = self.maxlist = self.maxtuple = self.maxset = NAMES

    def repr_int(self, x: int, level: int) -> str:
        """Of more than 4,300 digits Python makes no text."""
        try:
            return super().repr_int(x, level)
        except ValueError:
            return f'an integer of {x.bit_length():,} bits'


_repr = _Shortened()


@dataclass(frozen=True)
class Rule:
    """What a value must be.

    Args:
        holds: whether a value is allowed.
        allowed: what is allowed, as it stands after "must be" in a message.

    Example:
        >>> integer(1).check(3, 'train_cfg.sample_subnet_num')
        3
        >>> integer(1).check(0, 'train_cfg.sample_subnet_num')
        Traceback (most recent call last):
        mmbignas.errors.ConfigError: train_cfg.sample_subnet_num must be an integer >= 1, got 0
    """

    holds: Callable[[Any], bool]
    allowed: str

    def check(self, value: Any, key: str) -> Any:
        """Return the value.

        Args:
            value: what the config or the caller says.
            key: its place in the config, or the name of the argument.

        Raises:
            ConfigError: if the rule does not hold for it.
        """
        if not self.holds(value):
            raise must_be(key, self.allowed, value)
        return value

    def or_none(self) -> Rule:
        """This rule, or ``None``."""
        return Rule(lambda value: value is None or self.holds(value), f'{self.allowed}, or None')


def must_be(key: str, allowed: str, value: Any) -> ConfigError:
    """The error for a value that is not allowed: ``KEY must be ALLOWED, got VALUE``.

    Args:
        key: place in the config, or name of the argument.
        allowed: what is allowed.
        value: what was given; long ones are shortened.
    """
    return ConfigError(f'{key} must be {allowed}, got {shown(value)}')


def shown(value: Any) -> str:
    """A value for a message, at most a few hundred characters long, and made at once, whatever it is."""
    text = _repr.repr(value)
    return text if len(text) <= LONGEST else f'{text[:LONGEST]}...'


def in_one_line(error: BaseException | str) -> str:
    """What an error or a text says, for a message: one line, at most a few hundred characters long."""
    text = ' '.join(str(error).split()) or type(error).__name__
    return text if len(text) <= LONGEST else f'{text[:LONGEST]}...'


def check_options(owner: str, options: Mapping[str, Any], rules: Mapping[str, Rule]) -> None:
    """Check the options of a loop, a hook or a tool by a table of rules.

    Args:
        owner: what comes before the names in messages, e.g. ``SubnetLossHook`` or ``train_cfg``.
        options: name -> value, e.g. ``locals()`` at the start of ``__init__``; names without a rule are passed over.
        rules: name -> rule.

    Raises:
        ConfigError: for the first option that breaks its rule.
    """
    for name, rule in rules.items():
        rule.check(options[name], f'{owner}.{name}')


@contextmanager
def errors_below(key: str) -> Iterator[None]:
    """Put the place of a dict in the config before the keys that errors name."""
    try:
        yield
    except ConfigError as error:
        raise ConfigError(f'{key}.{error}') from None


def check_keys(value: Any, key: str, known: Collection[str], needed: Collection[str] = ()) -> Any:
    """Return a value that is a dict with no other keys than these.

    Args:
        value: what the config or the caller says.
        key: its place in the config, or the name of the argument.
        known: the keys that there may be.
        needed: those of them that there must be.

    Raises:
        ConfigError: for anything but a dict, a key that is not known, or one that is missing.
    """
    if isinstance(value, Mapping):
        unknown, missing = [name for name in value if name not in known], [name for name in needed if name not in value]
        if not unknown and not missing:
            return value
        names = unknown or missing
        more = f' and {len(names) - NAMES} more' if len(names) > NAMES else ''
        found = f'{"" if unknown else "no "}key {", ".join(map(shown, names[:NAMES]))}{more}'
    else:
        found = shown(value)
    allowed = f'a dict with {"the keys" if len(known) == len(needed) else "keys among"} {", ".join(known)}'
    raise ConfigError(f'{key} must be {allowed if known else "an empty dict"}, got {found}')


def integer(low: int | None = None, high: int | None = None) -> Rule:
    """Integers, not booleans, within limits that are allowed themselves."""
    return Rule(lambda value: _is_integer(value) and _within(value, low, high), f'an integer{_limits(low, high)}')


def number(low: float | None = None, high: float | None = None, above: float | None = None,
           below: float | None = None) -> Rule:
    """Finite numbers, not booleans, within limits that are allowed themselves, or above and below ones that are not."""
    limits = [f' > {above:g}'] if above is not None else []
    limits += [text for text in (_limits(low, high), '' if below is None else f' < {below:g}') if text]
    return Rule(lambda value: _is_number(value) and _within(value, low, high) and (above is None or value > above)
                and (below is None or value < below), f'a number{" and".join(limits)}')


def boolean() -> Rule:
    """``True`` or ``False``."""
    return Rule(lambda value: isinstance(value, bool), 'True or False')


def text(what: str = 'a string') -> Rule:
    """Strings that are not empty.

    Args:
        what: what kind, as it stands after "must be".
    """
    return Rule(lambda value: isinstance(value, str) and bool(value), what)


def one_of(choices: Collection[Any]) -> Rule:
    """One of several values, of the same type: 1 is not ``True``."""
    return Rule(lambda value: any(type(value) is type(choice) and value == choice for choice in choices),
                f'one of {", ".join(map(str, choices))}')


def list_of(rule: Rule, what: str, least: int = 0, most: int | None = None) -> Rule:
    """Lists or tuples whose entries keep a rule.

    Args:
        rule: of each entry.
        what: the list, as it stands after "must be", e.g. ``a list of layer names``.
        least: how many entries there are at least.
        most: how many entries there are at most; ``None`` for any number.
    """
    return Rule(lambda value: isinstance(value, Sequence) and not isinstance(value, (str, bytes))
                and least <= len(value) <= (len(value) if most is None else most) and all(map(rule.holds, value)), what)


METRIC_NAME = text("the name of a metric, such as 'coco/bbox_mAP'").or_none()


def _is_integer(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    try:
        return isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value)
    except OverflowError:  # an integer beyond all floating point numbers
        return False


def _within(value: Any, low: float | None, high: float | None) -> bool:
    return (low is None or value >= low) and (high is None or value <= high)


def _limits(low: float | None, high: float | None) -> str:
    if low is not None and high is not None:
        return f' from {low} to {high}'
    if low is not None:
        return f' >= {low}'
    return '' if high is None else f' <= {high}'
