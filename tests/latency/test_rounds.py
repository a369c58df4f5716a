"""Filling a table: in rounds, nothing twice, and on from where it stopped."""
from __future__ import annotations

import random
from collections import Counter
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import nn

from mmbignas.latency.rounds import Group, MeasuredSubnet, Part, lacking, run_rounds, signature
from mmbignas.latency.table import LatencyTable

IDENTITY = dict(model='fake')
WIDTHS = dict(a=1, b=2, c=3, d=2, e=4, f=2)  # b, d and f compute the same


def fake_groups() -> list[Group]:
    def build(keys: Collection[str], of_group: Sequence[str]) -> Iterator[Part]:
        assert keys
        for key in of_group:
            if key in keys:
                yield Part(key, nn.Linear(WIDTHS[key], 1), (torch.zeros(1, WIDTHS[key]), ))

    return [Group(keys, partial(build, of_group=keys)) for keys in (['a', 'b'], ['c', 'd', 'e', 'f'])]


def fake_networks() -> list[MeasuredSubnet]:
    return [MeasuredSubnet(str(width), lambda width=width: (nn.Linear(width, 2), (torch.zeros(1, width), )))
            for width in (7, 8, 9)]


class Stopwatch:
    """Answers times that follow from what was measured and how often it was before; may fail before a measurement."""

    def __init__(self) -> None:
        self.log: list[int] = []
        self.counts: Counter[int] = Counter()
        self.left: float = float('inf')

    def __call__(self, module: nn.Linear, inputs: tuple) -> float:
        if self.left < 1:
            raise KeyboardInterrupt
        self.left -= 1
        width = module.in_features
        self.log.append(width)
        self.counts[width] += 1
        return width + 0.1 * ((self.counts[width] * 7) % 3)


def fill(path: Path, stopwatch: Stopwatch, rounds: int = 3, remaining: list[int] | None = None) -> LatencyTable:
    table = LatencyTable.resume(path, IDENTITY)
    run_rounds(table, fake_groups(), fake_networks(), rounds, stopwatch, stopwatch,
               ([] if remaining is None else remaining).append)
    return table


def test_every_round_measures_everything_once(tmp_path: Path) -> None:
    stopwatch, remaining = Stopwatch(), []
    table = fill(tmp_path / 'table.json', stopwatch, remaining=remaining)
    rounds = [stopwatch.log[start:start + 7] for start in (0, 7, 14)]
    assert len(stopwatch.log) == 21
    assert all(sorted(widths) == [1, 2, 3, 4, 7, 8, 9] for widths in rounds)
    assert len(set(map(tuple, rounds))) == 3  # a busy phase meets others in each
    assert any(min(widths.index(width) for width in (7, 8, 9)) < 4 for widths in rounds)  # networks between blocks
    assert table.blocks['b'] == table.blocks['d'] == table.blocks['f']
    assert len(set(table.blocks.values())) == 4
    assert table.block('d') == table.block('b') == pytest.approx(2.)
    assert table.block('e') == pytest.approx(4.)
    assert table.network('9') == pytest.approx(9.)
    assert remaining[-1] == 0
    assert remaining == sorted(set(remaining), reverse=True)  # each report is about something new


def test_killed_anywhere_it_goes_on_to_the_same_table(tmp_path: Path) -> None:
    fill(tmp_path / 'whole.json', whole := Stopwatch())
    expected = (tmp_path / 'whole.json').read_bytes()
    rng = random.Random(0)
    for trial in range(25):
        path, stopwatch = tmp_path / f'{trial}.json', Stopwatch()
        while True:
            stopwatch.left = rng.randrange(0, 12)
            try:
                fill(path, stopwatch)
                break
            except KeyboardInterrupt:
                continue
        assert path.read_bytes() == expected
        assert stopwatch.log == whole.log  # in the same order, and nothing twice


def test_a_complete_table_measures_nothing(tmp_path: Path) -> None:
    fill(tmp_path / 'table.json', Stopwatch())
    stopwatch = Stopwatch()
    stopwatch.left = 0
    table = fill(tmp_path / 'table.json', stopwatch)
    assert lacking(table, fake_groups(), fake_networks(), 3) == 0
    assert lacking(table, fake_groups(), fake_networks(), 5) == 2 * 9


def test_more_rounds_add_to_a_table(tmp_path: Path) -> None:
    fill(tmp_path / 'table.json', Stopwatch(), rounds=1)
    fill(tmp_path / 'table.json', stopwatch := Stopwatch(), rounds=2)
    assert sorted(stopwatch.log) == [1, 2, 3, 4, 7, 8, 9]
    counts = [len(times) for times in LatencyTable.load(tmp_path / 'table.json').times.values()]
    assert counts == [2, 2, 2, 2]


def test_signature_tells_what_computes_otherwise() -> None:
    x = torch.zeros(1, 3, 8, 8)
    conv = nn.Conv2d(3, 4, 3)
    same = signature(conv, (x, ))
    assert signature(nn.Conv2d(3, 4, 3), (torch.ones(1, 3, 8, 8), )) == same
    others = [
        signature(nn.Conv2d(3, 5, 3), (x, )), signature(nn.Conv2d(3, 4, 3, stride=2), (x, )),
        signature(conv, (torch.zeros(2, 3, 8, 8), )), signature(conv, ([x], )), signature(conv, (x, x)),
        signature(nn.Sequential(conv), (x, ))]
    assert len({same, *others}) == 7
