"""Amounts of MACs and parameters as people write them.

Papers and the configs' keys (``flops_range``, ``baseline_flops``) say FLOPs and mean multiply-adds. What is read or
printed here says MACs, since to others a FLOP is half of one.
"""
from __future__ import annotations

import math
import re
from collections.abc import Sequence
from fractions import Fraction
from numbers import Integral, Real
from typing import Any

from mmbignas.utils.rules import must_be

PREFIXES = {'': 1, 'K': 10**3, 'M': 10**6, 'G': 10**9, 'T': 10**12}
GREATEST, LONGEST = 10**30, 100  # MACs, and characters that say how many
_AMOUNT = re.compile(r'(\+?(?:\d+\.?\d*|\.\d+)(?:e[+-]?\d{1,2})?)\s*([KMGT]?)\s*(?:MACs?)?', re.ASCII | re.IGNORECASE)
_ALLOWED = "a number of MACs > 0, such as 200000000000, 2e11, '200G', '1.5T' or '600 MMACs'"


def parse_amount(value: Any, key: str) -> int:
    """Read an amount of MACs.

    Decimal strings are read exactly; what is no whole number then is rounded to the nearest.

    Args:
        value: a number, or a string of a number, a prefix K, M, G or T, and ``MACs``, in upper or lower case; prefix
            and unit may be left out.
        key: its place in the config, for messages.

    Returns:
        int: MACs, at least 1.

    Raises:
        ConfigError: for anything else. ``FLOPs`` as a unit is refused too: some count a multiply-add as one of them,
            some as two.
    """
    if isinstance(value, str):
        text = value.strip()
        if re.search(r'flops?$', text, re.IGNORECASE):
            raise must_be(key, f'{_ALLOWED}, not FLOPs: a multiply-add is one to some and two to others', value)
        match = _AMOUNT.fullmatch(text) if len(text) < LONGEST else None
        amount = Fraction(match[1]) * PREFIXES[match[2].upper()] if match else None
    elif isinstance(value, Integral) and not isinstance(value, bool):
        amount = Fraction(int(value))
    elif isinstance(value, Real) and not isinstance(value, bool) and math.isfinite(value):
        amount = Fraction(float(value))
    else:
        amount = None
    if amount is None or not 1 <= round(amount) <= GREATEST:
        raise must_be(key, _ALLOWED, value)
    return round(amount)


def parse_range(value: Any, key: str) -> tuple[int | None, int | None]:
    """Read a range of MACs.

    Args:
        value: ``[low, high]``, both inclusive, of which either may be ``None``; ``None`` for no limit at all.
        key: its place in the config, for messages.

    Raises:
        ConfigError: for anything else, or a range whose low end is above its high end.
    """
    if value is None:
        return None, None
    if isinstance(value, str) or not isinstance(value, Sequence) or len(value) != 2:
        raise must_be(key, "[low, high], such as ['10G', '20G'], with None for no limit", value)
    low, high = (None if end is None else parse_amount(end, f'{key}[{index}]') for index, end in enumerate(value))
    if low is not None and high is not None and low > high:
        raise must_be(key, '[low, high] with low <= high', list(value))
    return low, high


def prefix_for(amount: float) -> tuple[int, str]:
    """The factor and the letter of the prefix with which an amount has at most three digits before the point."""
    fitting = ((factor, prefix) for prefix, factor in PREFIXES.items() if round(amount / factor, 2) < 1000)
    return next(fitting, (PREFIXES['T'], 'T'))


def format_macs(amount: int) -> str:
    """An amount of MACs for people, e.g. ``18.97 GMACs``."""
    factor, prefix = prefix_for(amount)
    return f'{amount / factor:.2f} {prefix}MACs' if prefix else f'{amount} MACs'


def format_params(amount: int) -> str:
    """A number of parameters for people, e.g. ``12.34 M``."""
    factor, prefix = prefix_for(amount)
    return f'{amount / factor:.2f} {prefix}' if prefix else f'{amount}'
