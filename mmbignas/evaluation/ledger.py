"""What is known about each evaluated subnet, in a file that survives whatever happens to the run."""
from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from mmengine.dist import is_main_process

from mmbignas.errors import ConfigError
from mmbignas.utils.files import replacing
from mmbignas.utils.locks import locked, take


class Ledger:
    """A file of JSON lines: first what the figures belong to, then one line per subnet.

    A line is on the disk when :meth:`append` returns. A process that is killed while it writes one leaves at most a
    part of that line, which is skipped. Several processes may append at the same time.

    Args:
        path: the file; it is made, with its folder, if it is not there.
        identity: name -> hash of what the figures depend on: the supernet's weights, the space, the data, ...

    Raises:
        ConfigError: for a file of something else, or one that cannot be read or written.
    """

    def __init__(self, path: str | Path, identity: Mapping[str, str]) -> None:
        self.path = Path(path)
        self._read = 0
        self._lines: dict[int, dict[str, Any]] = {}
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            with _locked(self.path):
                if not self.path.exists():
                    with replacing(self.path) as aside:
                        aside.write_text(json.dumps(dict(identity=dict(identity))) + '\n', encoding='utf-8')
            with self.path.open(encoding='utf-8') as file:
                header = _parsed(file.readline()) or {}
        except UnicodeDecodeError:
            header = {}
        except OSError as error:
            raise ConfigError(f'{self.path}: cannot be read and written ({error.strerror}); give a folder that can be '
                              'made or written to') from error
        check_identity(header.get('identity'), identity, str(self.path))

    def append(self, line: Mapping[str, Any]) -> None:
        """Add a subnet: what is known about it, with its ``number`` in the space."""
        with _locked(self.path), self.path.open('rb+') as file:
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
                line = _parsed(raw)
                if line is not None and str(line.get('number')).isdecimal() and isinstance(line.get('metrics'), dict):
                    self._lines.setdefault(int(line['number']), line)
        return dict(self._lines)


def check_identity(found: Any, expected: Mapping[str, str], where: str) -> None:
    """Make sure that the figures that are kept somewhere are those of this run's supernet, space and data.

    Raises:
        ConfigError: naming what differs between the identity that was found with them and the one expected.
    """
    if not isinstance(found, Mapping):
        raise ConfigError(f'{where}: is no record of evaluated subnets; give another folder')
    differing = [name for name in expected if found.get(name) != expected[name]]
    if differing:
        raise ConfigError(f'{where}: holds figures of another {", ".join(differing)}, which do not belong together '
                          "with this run's; give another folder, or move the file away")


def _parsed(raw: str | bytes) -> dict[str, Any] | None:
    """A line as a dict, or ``None`` for what is left of one that was torn."""
    try:
        line = json.loads(raw)
    except ValueError:
        return None
    return line if isinstance(line, dict) else None


def _locked(path: Path) -> AbstractContextManager[None]:
    """Wait until no other process writes to a file; the lock is gone when the process is."""
    return locked(path.with_name(f'.{path.name}.lock'))


@contextmanager
def only_run(path: Path) -> Iterator[None]:
    """Keep other runs from evaluating the same subnets; the processes of a distributed run are one.

    Raises:
        ConfigError: when another run writes to the ledger.
    """
    if not is_main_process():
        yield
        return
    lock = take(path.with_name(f'.{path.name}.run'))
    if lock is None:
        raise ConfigError(f'{path}: another run writes to it; wait until it has ended, or give another --work-dir')
    with lock:
        yield
