"""Plain data out of files: what is valid comes back, and whatever else a file may hold is one line, at once."""
from __future__ import annotations

import json
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from mmbignas.errors import ConfigError
from mmbignas.utils import plain_data
from mmbignas.utils.plain_data import parse_json, parse_yaml, read_data

CONTENT: Any = dict(text='a\u2028"', numbers=[0, -1, 2**70, 1e300, .1], nothing=None, yes=True, deep=[[[{}]]])
BOMB = 'a: &a [x, x, x, x, x, x, x, x, x]\n' + ''.join(
    f'{name}: &{name} [{", ".join([f"*{before}"] * 9)}]\n' for before, name in zip('abcdefghi', 'bcdefghij'))
MERGES = 'a: &a {x0: 1, x1: 2}\n' + ''.join(
    f'{name}: &{name} {{<<: [{", ".join([f"*{before}"] * 9)}]}}\n' for before, name in zip('abcdefghi', 'bcdefghij'))


def one_line(path: Path) -> str:
    """The message about a file, which comes within a second or two."""
    begin = time.process_time()
    with pytest.raises(ConfigError) as error:
        read_data(path, 'table')
    assert time.process_time() - begin < 2
    message = str(error.value)
    assert message.startswith(f'{path}: ')
    assert '\n' not in message
    assert len(message) < len(str(path)) + 700
    return message


@pytest.mark.parametrize(('name', 'text'), [
    ('a.json', json.dumps(CONTENT)), ('a.yaml', yaml.safe_dump(CONTENT)), ('a.yml', yaml.safe_dump(CONTENT)),
    ('a.data', '\ufeff' + json.dumps(CONTENT))])
def test_what_is_valid_comes_back(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text, encoding='utf-8')
    assert read_data(tmp_path / name) == CONTENT


def test_aliases_stand_for_what_they_name() -> None:
    assert parse_yaml('a: &a [1, 2]\nb: *a\nc: &c {d: *a}\ne: {<<: *c, f: 3}') == dict(
        a=[1, 2], b=[1, 2], c=dict(d=[1, 2]), e=dict(d=[1, 2], f=3))


@pytest.mark.parametrize(('text', 'part'), [
    ('', 'Expecting value'),
    ('{"a": 1}\n{', 'line 2'),
    ('[NaN]', 'a value must be a finite number, a string, a boolean, null, a list or a dict, got nan'),
    ('{"a": [Infinity]}', 'got inf'),
    ('[1e999]', 'got inf'),
    ('[' + '9' * 5000 + ']', 'Exceeds the limit'),
    ('[' * 100_000, 'nested at most 50 deep'),
    ('[' * 60 + ']' * 60, 'nested at most 50 deep'),
])
def test_json_that_is_refused(tmp_path: Path, text: str, part: str) -> None:
    path = tmp_path / 'a.json'
    path.write_text(text)
    message = one_line(path)
    assert 'is not valid JSON (' in message
    assert part in message
    with pytest.raises(ConfigError):
        parse_json(text)


@pytest.mark.parametrize(('text', 'part'), [
    ('a: [1, 2\nb: 3', 'line 2'),
    ('a: !!bool maybe', "'maybe'"),
    ('a: !!timestamp abc', 'NoneType'),
    ('a: !!int x', 'invalid literal'),
    ('a: !!float x', 'could not convert'),
    ('a: !!binary x', ''),
    ('a: !!python/object/apply:os.system [echo]', 'could not determine a constructor'),
    ('a: 2026-12-01', 'a value must be a finite number, .*, got datetime.date'),
    ('a: .nan', 'got nan'),
    ('a: -.inf', 'got -inf'),
    ('a: !!set {x}', "got {'x'}"),
    ('1: x', 'a key must be a string, got 1'),
    ('? [a, b]\n: x', 'unhashable key'),
    ('a: 0x' + 'f' * 10**5, None),
    ('[' * 20_000, 'nested at most 50 deep'),
    ('&a [*a]', 'an alias must not stand for what it is part of'),
    (BOMB, 'at most 1,000,000 entries'),
    (MERGES, 'at most 1,000,000 entries'),
])
def test_yaml_that_is_refused(tmp_path: Path, text: str, part: str | None) -> None:
    path = tmp_path / 'a.yaml'
    path.write_text(text)
    if part is None:  # a number after all
        assert read_data(path)['a'] == int(text[3:], 16)
        return
    message = one_line(path)
    assert 'is not valid YAML (' in message
    assert all(own in message for own in part.split('.*'))


def test_files_that_cannot_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert 'cannot be read (No such file or directory); give an existing table' in one_line(tmp_path / 'no.json')
    assert 'cannot be read (Is a directory)' in one_line(tmp_path)
    assert 'cannot be read (embedded null byte)' in one_line(Path('a\0.json'))
    assert 'must be at most 67,108,864 bytes long' in one_line(Path('/dev/zero'))
    monkeypatch.setattr(plain_data, 'MAX_YAML', 10)
    (tmp_path / 'long.yaml').write_text('- 12345678\n')
    assert 'must be at most 10 bytes long; give another table' in one_line(tmp_path / 'long.yaml')


def test_random_bytes_are_data_or_one_line(tmp_path: Path) -> None:
    """2,000 files: bytes of a valid one changed, or none of it; nothing is raised but our error."""
    rng, refused = random.Random(0), 0
    pieces = [json.dumps(CONTENT).encode(), yaml.safe_dump(CONTENT).encode(), b'&a *a !! ? : - {} [] << ~ \x00\xff\n']
    for number in range(2000):
        raw = bytearray(rng.choice(pieces))
        for _ in range(rng.randint(1, 8)):
            place = rng.randrange(len(raw))
            raw[place:place + rng.randint(0, 3)] = rng.choice(pieces[2:] + [rng.randbytes(2)])[:rng.randint(0, 6)]
            raw = raw or bytearray(b'x')
        try:
            content = (parse_json if number % 2 else parse_yaml)(bytes(raw))
        except ConfigError as error:
            refused += 1
            assert '\n' not in str(error)
        else:
            assert not isinstance(content, float) or math.isfinite(content)
            json.dumps(content, allow_nan=False)
    assert 500 < refused < 2000
