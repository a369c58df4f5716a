"""A disk that is full, a folder that cannot be written to: one line that says what, and nothing is lost."""
from __future__ import annotations

import errno
import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmbignas.analysis.figures import new_figure, save_figure
from mmbignas.cli import run_tool
from mmbignas.errors import ConfigError
from mmbignas.utils.files import new_folder, replacing, write_file, write_json, writing, written_together
from tests.analysis.evaluated import sample


def full(reason: int = errno.ENOSPC) -> OSError:
    return OSError(reason, os.strerror(reason))


def written(path: Path) -> None:
    with replacing(path) as aside:
        aside.write_text('half')
        raise full()


def together(path: Path) -> None:
    with written_together(path.parent, [path.name, 'other']) as asides:
        asides[0].write_text('half')
        raise full()


def folder(path: Path) -> None:
    with new_folder(path) as aside:
        (aside / 'half').write_text('half')
        raise full()


@pytest.mark.parametrize('write', [written, together, folder])
def test_nothing_is_left_of_what_was_not_finished(tmp_path: Path, write: Callable[[Path], None]) -> None:
    with pytest.raises(ConfigError, match=r'cannot be written \(No space left on device\); make room, and run the same '
                       'command again') as error:
        write(tmp_path / 'name')
    assert str(error.value).startswith(str(tmp_path)) and '.partial' not in str(error.value)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize('reason', [errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES])
@pytest.mark.parametrize('write', [
    lambda path: write_json(path, dict(a=1)), lambda path: write_file(path, b'a'),
    lambda path: sample(3).write_csv(path), lambda path: save_figure(new_figure('a')[0], path, 20)],
    ids=['json', 'file', 'csv', 'figure'])
def test_what_is_there_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, write: Any, reason: int) -> None:
    path = tmp_path / 'a.json'
    path.write_text('before')

    def replace(*args: Any) -> None:
        raise full(reason)

    monkeypatch.setattr(os, 'replace', replace)
    with pytest.raises(ConfigError, match=f'a.json: cannot be .*written .{os.strerror(reason)}') as error:
        write(path)
    assert '\n' not in str(error.value)
    assert [own.name for own in tmp_path.iterdir()] == ['a.json'] and path.read_text() == 'before'


def test_other_errors_pass_through() -> None:
    for error in (OSError(errno.ENOENT, 'No such file', 'a'), RuntimeError('CUDA out of memory'), KeyError('a')):
        with pytest.raises(type(error)) as found, writing('x'):
            raise error
        assert found.value is error
    with pytest.raises(ConfigError, match=r'^w.pth: cannot be written \(the disk may be full\)'), writing('w.pth'):
        raise RuntimeError('PytorchStreamWriter failed writing file data/3: file write failed')
    with pytest.raises(ConfigError, match=r'^/a/b: cannot be read or written \(Permission denied\)'), writing('x'):
        raise OSError(errno.EACCES, 'Permission denied', '/a/b')


def test_a_tool_says_it_in_one_line(capsys: pytest.CaptureFixture, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                    ) -> None:
    monkeypatch.setattr(logging.Handler, 'handleError', logging.Handler.handleError)  # put back afterwards
    handler = logging.FileHandler(tmp_path / 'run.log')
    logger = logging.Logger('own')
    logger.addHandler(handler)

    def main() -> None:
        with monkeypatch.context() as patch:
            patch.setattr(handler.stream, 'write', lambda text: (_ for _ in ()).throw(full()), raising=False)
            for number in range(3):
                logger.warning('line %d', number)
        raise full()

    monkeypatch.setattr(handler, 'stream', _Stream())
    with pytest.raises(SystemExit) as end:
        run_tool(main)
    assert end.value.code == 2
    assert capsys.readouterr().err.splitlines() == [
        f'warning: {tmp_path}/run.log: cannot be written (No space left on device); the run goes on without it',
        'error: a file of this run: cannot be written (No space left on device); make room, and run the same command '
        'again']


class _Stream:
    """A stream whose methods can be replaced."""

    def write(self, text: str) -> None: ...

    def flush(self) -> None: ...

    def close(self) -> None: ...
