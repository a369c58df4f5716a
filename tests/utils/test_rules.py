"""Rules for options: what they allow, and the one form of message."""
from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mmbignas.errors import ConfigError
from mmbignas.utils.rules import (
    Rule,
    boolean,
    check_keys,
    check_options,
    integer,
    list_of,
    must_be,
    number,
    one_of,
    shown,
    text,
)

NAN, INF = float('nan'), float('inf')


@pytest.mark.parametrize(('rule', 'allowed', 'good', 'bad'), [
    (integer(), 'an integer', [0, -3, np.int64(2)], [1., True, '1', None]),
    (integer(1), 'an integer >= 1', [1, 10**30], [0]),
    (integer(0, 4), 'an integer from 0 to 4', [0, 4], [-1, 5]),
    (integer(0).or_none(), 'an integer >= 0, or None', [None, 0], [-1, False]),
    (number(), 'a number', [0, -.5, np.float32(2), 10**300], [True, '1', NAN, INF, None, 10**309, np.float32('inf')]),
    (number(0, 1), 'a number from 0 to 1', [0, 1, .5], [-.1, 1.1]),
    (number(0, below=1), 'a number >= 0 and < 1', [0, .99], [1, -.1]),
    (number(above=0, high=2), 'a number > 0 and <= 2', [.1, 2], [0, 2.1]),
    (boolean(), 'True or False', [True, False], [0, 1, None, 'True']),
    (text(), 'a string', ['a'], ['', 1, None]),
    (one_of((True, False, 'both')), 'one of True, False, both', [True, 'both'], [1, 0, 'no', []]),
    (list_of(integer(1), 'two widths', least=2, most=2), 'two widths', [[1, 2], (3, 4)],
     [[1], [1, 2, 3], [0, 1], '12', 5]),
])
def test_rules(rule: Rule, allowed: str, good: list[Any], bad: list[Any]) -> None:
    for value in good:
        assert rule.check(value, 'key') is value
    for value in bad:
        with pytest.raises(ConfigError) as error:
            rule.check(value, 'key')
        assert str(error.value) == f'key must be {allowed}, got {shown(value)}'


def test_options_are_checked_by_name() -> None:
    check_options('Hook', dict(interval=1, other=None), dict(interval=integer(1)))
    with pytest.raises(ConfigError, match='^Hook.interval must be an integer >= 1, got 0$'):
        check_options('Hook', dict(interval=0), dict(interval=integer(1)))


@pytest.mark.parametrize(('value', 'known', 'needed', 'message'), [
    (5, 'ab', '', 'a dict with keys among a, b, got 5'),
    (dict(c=1, a=1, d=2), 'ab', '', "a dict with keys among a, b, got key 'c', 'd'"),
    (dict(a=1), 'ab', 'ab', "a dict with the keys a, b, got no key 'b'"),
    ({3: 1}, '', '', 'an empty dict, got key 3'),
])
def test_keys(value: Any, known: str, needed: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        check_keys(value, 'train_cfg', tuple(known), tuple(needed))
    assert str(error.value) == f'train_cfg must be {message}'


def test_keys_that_may_be() -> None:
    for value in ({}, dict(a=1), dict(a=1, b=2)):
        assert check_keys(value, 'key', 'ab') is value


def test_long_values_are_shortened() -> None:
    nested: Any = ['x' * 100] * 9
    for _ in range(20):
        nested = [nested] * 9
    for value in ('x' * 10**6, list(range(10**6)), dict.fromkeys(range(100), 'x' * 10**5), np.zeros(10**5), nested,
                  10**5000):
        assert len(str(must_be('key', 'short', value))) < 450
    assert str(must_be('key', 'short', 10**5000)) == 'key must be short, got an integer of 16,610 bits'
    with pytest.raises(ConfigError, match="got key 'k0', 'k1', .*, 'k7' and 9992 more$"):
        check_keys({f'k{index}': 1 for index in range(10**4)}, 'key', 'ab')
