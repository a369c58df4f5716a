"""Measured latencies in a file."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmbignas.errors import ConfigError
from mmbignas.utils.files import write_json
from mmbignas.utils.identity import differences, listed_differences
from mmbignas.utils.plain_data import read_data
from mmbignas.utils.rules import Rule, check_keys, check_options, list_of, must_be, number, shown, text

SETTINGS = 'settings'  # of the model, in the identity of a table
SECTIONS = ('identity', 'blocks', 'times', 'networks', 'fit')
SECTION = Rule(lambda value: isinstance(value, dict), 'a dict')
TIMES = list_of(number(above=0), 'a non-empty list of numbers > 0', least=1)  # milliseconds
NETWORKS = list_of(text(), 'a list of names')
FIT_RULES = dict(intercept=number(), slope=number(), error=number(0), fitted=NETWORKS, held_out=NETWORKS)


class LatencyTable:
    """Milliseconds of blocks and of whole networks on one device.

    Each is measured in several rounds, and its latency is that of its quietest round: whatever else the machine does
    makes it slower, never faster.

    Args:
        path: the JSON file. It is written by :meth:`save`.
        content: what is in it; ``None`` for nothing.

    Attributes:
        identity: what was measured, on what and how.
        blocks: key of a block -> its signature. Blocks that compute the same have the same one.
        times: signature -> median of each round.
        networks: name of a whole network -> median of each round.
        fit: what blocks say about networks; ``None`` until everything is measured.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any], content: Mapping[str, Any] | None = None) -> None:
        content = content or {}
        self.path = Path(path)
        self.identity: dict[str, Any] = json.loads(json.dumps(identity))  # as it will come back from the file
        self.blocks: dict[str, str] = dict(content.get('blocks', {}))
        self.times: dict[str, list[float]] = dict(content.get('times', {}))
        self.networks: dict[str, list[float]] = dict(content.get('networks', {}))
        self.fit = LinearFit(**content['fit']) if content.get('fit') else None

    @classmethod
    def load(cls, path: str | Path) -> LatencyTable:
        """Read a table. Raises ConfigError for a file that is not there, not a table, or damaged."""
        content = read_data(path, 'latency table')
        try:
            _check(content)
        except ConfigError as error:
            raise ConfigError(f'{path}: is damaged, or no latency table ({error}); delete it or name another '
                              'file') from error
        return cls(path, content['identity'], content)

    @classmethod
    def resume(cls, path: str | Path, identity: Mapping[str, Any]) -> LatencyTable:
        """Read a table to go on with it, or begin one where there is none.

        Raises:
            ConfigError: for a file that is damaged, or a table of something else.
        """
        new = cls(path, identity)
        if not Path(path).exists():
            return new
        table = cls.load(path)
        for key in {**table.identity, **new.identity}:
            found, expected = table.identity.get(key), new.identity.get(key)
            if key == SETTINGS and found != expected:
                named = listed_differences(differences(*(
                    own if isinstance(own, Mapping) else {} for own in (found, expected))))
                raise ConfigError(f'{path}: was measured with another network, which differs in {named}; give the same '
                                  'as before, or another file')
            if found != expected:
                raise ConfigError(f'{path}: was measured with {key} {shown(found)}, now it is {shown(expected)}; give '
                                  'the same as before, or another file')
        return table

    def save(self) -> None:
        """Write the file; it is replaced when the new one is complete. Raises ConfigError when it cannot be written."""
        write_json(self.path, dict(identity=self.identity, blocks=self.blocks, times=self.times, networks=self.networks,
                                   fit=self.fit and self.fit._asdict()))

    def rounds_of_block(self, key: str) -> int:
        """In how many rounds a block was measured."""
        return len(self.times.get(self.blocks.get(key, ''), ()))

    def block(self, key: str) -> float:
        """Milliseconds of a block. Raises ConfigError for a block that is not in the table."""
        if key not in self.blocks:
            raise ConfigError(f'{self.path}: has no block {key}; build the table for this model and these image sizes')
        return min(self.times[self.blocks[key]])

    def network(self, name: str) -> float:
        """Milliseconds of a whole network that was measured."""
        return min(self.networks[name])


def _check(content: Any) -> None:
    """Make sure that the content of a file has the form of a table. Raises ConfigError, saying what is wrong."""
    check_keys(content, 'it', SECTIONS, SECTIONS)
    for section in SECTIONS[:-1]:
        SECTION.check(content[section], section)
    for section in ('times', 'networks'):
        for name, values in content[section].items():
            TIMES.check(values, f'{section}.{name}')
    for key, signature in content['blocks'].items():
        if not isinstance(signature, str) or signature not in content['times']:
            raise must_be(f'blocks.{key}', 'a key of times', signature)
    if content['fit'] is not None:
        check_keys(content['fit'], 'fit', LinearFit._fields, LinearFit._fields)
        check_options('fit', content['fit'], FIT_RULES)


class LinearFit(NamedTuple):
    """What the latencies of blocks say about that of the network.

    Args:
        intercept: milliseconds that a network takes beside its blocks.
        slope: milliseconds of the network per millisecond of its blocks.
        error: median absolute error on networks that were held out of the fit, in percent.
        fitted: names of the networks that it was fitted on.
        held_out: names of those that were held out.
    """

    intercept: float
    slope: float
    error: float
    fitted: Sequence[str]
    held_out: Sequence[str]

    def __call__(self, blocks: float) -> float:
        """Milliseconds of a network whose blocks take so many."""
        return self.intercept + self.slope * blocks


def fit_line(x: Sequence[float], y: Sequence[float]) -> tuple[float, float]:
    """Fit ``y = intercept + slope * x`` by the medians of slopes and intercepts (Theil, 1950; Sen, 1968).

    Unlike least squares it does not notice a few points that are far off, even at an end of the line: those that
    were measured while the machine was busy. At least two values of ``x`` have to differ.
    """
    x_values, y_values = np.asarray(x, dtype=float), np.asarray(y, dtype=float)
    rises, runs = np.subtract.outer(y_values, y_values), np.subtract.outer(x_values, x_values)
    slope = np.median(rises[runs > 0] / runs[runs > 0])  # each pair of points once
    return float(np.median(y_values - slope * x_values)), float(slope)


def percentage_error(predicted: Sequence[float], measured: Sequence[float]) -> float:
    """Median of the absolute errors, in percent of what was measured."""
    expected = np.asarray(measured, dtype=float)
    return float(100 * np.median(np.abs(np.asarray(predicted, dtype=float) - expected) / expected))
