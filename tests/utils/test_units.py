"""Amounts of MACs: read exactly, and written so that a reader gets them back."""
from __future__ import annotations

from decimal import Decimal, localcontext
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmbignas import ConfigError
from mmbignas.utils.rules import shown
from mmbignas.utils.units import _ALLOWED, format_macs, format_params, parse_amount, parse_range, prefix_for

ZEROS = {'': 0, 'k': 3, 'K': 3, 'm': 6, 'M': 6, 'g': 9, 'G': 9, 't': 12, 'T': 12}


@given(digits=st.integers(1, 10**18), point=st.integers(0, 18), prefix=st.sampled_from(list(ZEROS)),
       space=st.sampled_from(['', ' ', '  ']), unit=st.sampled_from(['', 'MACs', 'macs', 'MAC', ' MACs']))
def test_decimal_strings_are_read_exactly(digits: int, point: int, prefix: str, space: str, unit: str) -> None:
    written = str(digits).rjust(point + 1, '0')
    written = f'{written[:len(written) - point]}.{written[len(written) - point:]}' if point else written
    with localcontext(prec=60):
        exact = Decimal(digits).scaleb(ZEROS[prefix] - point)
        expected = int(exact.to_integral_value())  # half to even, as round() does
    text = f'{written}{space}{prefix}{unit}'
    if expected < 1:
        with pytest.raises(ConfigError):
            parse_amount(text, 'key')
    else:
        assert parse_amount(text, 'key') == expected


@pytest.mark.parametrize(('value', 'expected'), [
    ('200G', 200 * 10**9), ('1.5T', 1_500_000_000_000), ('600M', 600 * 10**6), ('18.97 GMACs', 18_970_000_000),
    ('18.97G', 18_970_000_000), (2e11, 2 * 10**11), (200, 200), ('200', 200), ('200MACs', 200),
    ('200 mmacs', 2 * 10**8), ('2e11', 2 * 10**11), (' +3.k ', 3000), ('.5K', 500),
    (0.95 * 18_970_000_001, 18021500001), (np.int64(7), 7), (np.float32(2048), 2048), (10**30, 10**30)])
def test_amounts(value: Any, expected: int) -> None:
    amount = parse_amount(value, 'key')
    assert amount == expected
    assert type(amount) is int


@pytest.mark.parametrize('value', [
    0, -1, '-5G', '0', '0.4', 0.2, True, False, None, '', 'G', 'MACs', '1,5G', '1.2.3G', '5X', '5 G M', '5GB', '1_0G',
    '5 e9', '1e999', 'nan', 'inf', float('nan'), float('inf'), -float('inf'), [5], {}, 1j, b'5G', '٣G', '5Gmacro',
    10**31, 10**400, '1' * 5000])
def test_anything_else_is_refused(value: Any) -> None:
    with pytest.raises(ConfigError) as error:
        parse_amount(value, 'test_cfg.baseline_flops')
    message = str(error.value)
    assert message == f'test_cfg.baseline_flops must be {_ALLOWED}, got {shown(value)}'
    assert '\n' not in message


@pytest.mark.parametrize('value', ['200GFLOPs', '200 gflops', '200GFLOP', '1 FLOPs'])
def test_flops_are_ambiguous(value: str) -> None:
    with pytest.raises(ConfigError, match=f"key must be .*, not FLOPs: a multiply-add is one to .*, got '{value}'"):
        parse_amount(value, 'key')


@given(st.integers(1, 10**16))
def test_what_is_written_can_be_read(amount: int) -> None:
    text = format_macs(amount)
    number, unit = text.split()
    assert unit.endswith('MACs')
    step = 1 if unit == 'MACs' else 10**ZEROS[unit[0]] // 100
    assert abs(parse_amount(text, 'key') - amount) <= step / 2
    assert float(number) < 1000 or unit[0] == 'T'
    assert format_params(amount) == text.removesuffix('MACs').strip()


@pytest.mark.parametrize(('amount', 'text'), [
    (0, '0 MACs'), (999, '999 MACs'), (1000, '1.00 KMACs'), (999_994, '999.99 KMACs'), (999_996, '1.00 MMACs'),
    (18_970_000_000, '18.97 GMACs'), (161_580_865_536, '161.58 GMACs'), (999_996 * 10**6, '1.00 TMACs')])
def test_written(amount: int, text: str) -> None:
    assert format_macs(amount) == text


def test_prefix() -> None:
    assert [prefix_for(amount) for amount in (5, 5e3, 5e6, 5e9, 5e12, 5e18)] == [
        (1, ''), (10**3, 'K'), (10**6, 'M'), (10**9, 'G'), (10**12, 'T'), (10**12, 'T')]


@pytest.mark.parametrize(('value', 'expected'), [
    (None, (None, None)), ([None, None], (None, None)), (['1G', '2G'], (10**9, 2 * 10**9)), ((5, 5), (5, 5)),
    ([None, '1.5K'], (None, 1500)), ([3, None], (3, None))])
def test_ranges(value: Any, expected: tuple) -> None:
    assert parse_range(value, 'flops_range') == expected


@pytest.mark.parametrize(('value', 'message'), [
    (['2G', '1G'], r"flops_range must be \[low, high\] with low <= high, got \['2G', '1G'\]"),
    ([1, 2, 3], r'flops_range must be \[low, high\].*, got \[1, 2, 3\]'), ('1G', "flops_range must be .*, got '1G'"),
    (['1G', 'x'], r"flops_range\[1\] must be a number of MACs .*, got 'x'"),
    (['1GFLOPs', None], r'flops_range\[0\] must be .*, not FLOPs')])
def test_ranges_that_are_none(value: Any, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse_range(value, 'flops_range')
