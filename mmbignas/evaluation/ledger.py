"""What is known about each evaluated subnet, in a file that survives whatever happens to the run."""
from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from mmbignas.errors import ConfigError
from mmbignas.utils.files import replacing, writing
from mmbignas.utils.identity import differences, listed_differences
from mmbignas.utils.locks import locked, take
from mmbignas.utils.plain_data import parse_json


class Ledger:
    """A file of JSON lines: first what the figures belong to, then one line per subnet.

    A line is on the disk when :meth:`append` returns. A process that is killed while it writes one leaves at most a
    part of that line. Lines that are damaged or torn are passed over, so that their subnets are evaluated again.
    Several processes may append at the same time.

    Args:
        path: the file; it is made, with its folder, if it is not there.
        identity: what the figures depend on, see :mod:`mmbignas.utils.identity`.
        usable: whether a line with a number and metrics says what the run needs; the others are passed over.

    Raises:
        ConfigError: for a file of something else, or one that cannot be read or written.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, Any],
                 usable: Callable[[Mapping[str, Any]], bool] = lambda line: True) -> None:
        self.path, self._usable = Path(path), usable
        self._read = 0
        self._lines: dict[int, dict[str, Any]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path):
                if not self.path.exists():
                    with replacing(self.path) as aside:
                        aside.write_text(json.dumps(dict(identity=dict(identity))) + '\n', encoding='utf-8')
            with self.path.open('rb') as file:
                header = parsed_line(file.readline()) or {}
        except OSError as error:
            raise ConfigError(f'{self.path}: cannot be read and written ({error.strerror}); give a folder that can be '
                              'made or written to') from error
        check_identity(header.get('identity'), identity, str(self.path))

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a subnet: what is known about it, with its ``number`` in the space.

        Raises:
            ConfigError: when it cannot be written, as on a full disk; the lines that are there stay.
        """
        with writing(self.path), _locked(self.path), self.path.open('rb+') as file:
            end = file.seek(0, os.SEEK_END)
            file.seek(end - 1)
            torn = file.read(1) != b'\n'  # by a process that was killed
            file.write(b'\n' * torn + (json.dumps(line, allow_nan=False) + '\n').encode())
            file.flush()
            os.fsync(file.fileno())

    def lines(self) -> dict[int, dict[str, Any]]:
        """Number -> line of each finished subnet, those of other processes too, in the order of the file."""
        with self.path.open('rb') as file:
            file.seek(self._read)
            for raw in file:
                if not raw.endswith(b'\n'):
                    break  # somebody is writing it
                self._read += len(raw)
                line = parsed_line(raw)
                number = None if line is None else line_number(line)
                if line is not None and number is not None and self._usable(line):
                    self._lines.setdefault(number, line)
        return dict(self._lines)


def line_number(line: Mapping[str, Any]) -> int | None:
    """The number of the subnet that a line has metrics of; ``None`` for a line of another form."""
    number = line.get('number')
    if isinstance(number, bool) or not isinstance(number, (int, str)) or not isinstance(line.get('metrics'), Mapping):
        return None
    try:
        return int(number) if str(number).isdecimal() else None
    except ValueError:  # more digits than Python takes
        return None


def check_identity(found: Any, expected: Mapping[str, Any], where: str) -> None:
    """Make sure that the figures that are kept somewhere are those of this run's supernet, space and data.

    Raises:
        ConfigError: naming what differs between the identity that was found with them and the one expected.
    """
    if not isinstance(found, Mapping):
        raise ConfigError(f'{where}: is no record of evaluated subnets, or its first line is damaged; give another '
                          'folder')
    differing = differences(found, expected)
    if differing:
        raise ConfigError(f'{where}: holds figures that do not belong together with those of this run, which differs '
                          f'in {listed_differences(differing)}; give another folder, or move the file away')


def parsed_line(raw: bytes) -> dict[str, Any] | None:
    """A line as a dict, or ``None`` for what is left of one that was torn or damaged."""
    try:
        line = parse_json(raw)
    except ConfigError:
        return None
    return line if isinstance(line, dict) else None


def _locked(path: Path) -> AbstractContextManager[None]:
    """Wait until no other process writes to a file; the lock is gone when the process is."""
    return locked(path.with_name(f'.{path.name}.lock'))


@contextmanager
def only_run(path: Path) -> Iterator[None]:
    """Keep other runs from evaluating the same subnets; the processes of a distributed run are one.

    Raises:
        ConfigError: when another run writes to the ledger, or its folder cannot be written to.
    """
    if not is_main_process():
        yield
        return
    with writing(path):
        lock = take(path.with_name(f'.{path.name}.run'))
    if lock is None:
        raise ConfigError(f'{path}: another run writes to it; wait until it has ended, or give another --work-dir')
    with lock:
        yield
