"""Files that are written aside first: nobody can be there before, and what is left is removed, but nobody's else."""
import os
import signal
import stat
import threading
from pathlib import Path

import pytest

from mmbignas.errors import ConfigError
from mmbignas.evaluation.ledger import Ledger, only_run
from mmbignas.utils import partial_folders
from mmbignas.utils.files import new_folder, replacing, write_file, written_together
from mmbignas.utils.locks import locked, take
from mmbignas.utils.partial_folders import partial_folder, remove_left_over

WRITERS = dict(
    file=lambda folder: replacing(folder / 'x.json'),
    folder=lambda folder: new_folder(folder / 'made'),
    together=lambda folder: written_together(folder, ['x.json', 'y.json']),
)


def in_a_fork(work):
    """Run a function in a forked process; how it ended."""
    child = os.fork()
    if child == 0:
        try:
            work()
        finally:
            os._exit(0)
    return os.waitpid(child, 0)[1]


@pytest.mark.parametrize('kind', WRITERS)
def test_what_a_killed_process_leaves(tmp_path, kind):
    def die():
        with WRITERS[kind](tmp_path):
            os.kill(os.getpid(), signal.SIGKILL)

    assert os.WTERMSIG(in_a_fork(die)) == signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    write_file(tmp_path / 'other.json', b'{}')
    assert [path.name for path in tmp_path.iterdir()] == ['other.json']


@pytest.mark.parametrize('kind', WRITERS)
def test_a_living_process_is_left_alone(tmp_path, kind):
    with WRITERS[kind](tmp_path) as aside:
        [left] = tmp_path.iterdir()

        def others():
            write_file(tmp_path / 'other.json', b'{}')
            remove_left_over(tmp_path)

        in_a_fork(others)
        thread = threading.Thread(target=others)  # a lock of the same process
        thread.start()
        thread.join()
        assert left.is_dir()
        if kind == 'file':
            aside.write_bytes(b'mine')
        elif kind == 'together':
            for own in aside:
                own.write_bytes(b'mine')
    assert not left.exists()
    assert {path.name for path in tmp_path.iterdir()} == {'other.json'} | {
        'file': {'x.json'}, 'folder': {'made'}, 'together': {'x.json', 'y.json'}}[kind]


def test_a_folder_is_locked_before_it_can_be_found(tmp_path, monkeypatch):
    flock = partial_folders.fcntl.flock

    def watched(file, how):
        remove_left_over(tmp_path)  # another process, at the worst moment
        flock(file, how)

    monkeypatch.setattr(partial_folders.fcntl, 'flock', watched)
    with partial_folder(tmp_path / 'x') as folder:
        (folder / 'x').write_text('mine')
        assert folder.is_dir()


def test_other_hidden_files_are_no_left_over(tmp_path):
    (tmp_path / 'elsewhere').mkdir()
    (tmp_path / 'elsewhere' / partial_folders.LOCK).write_text('')
    (tmp_path / '.x.partial').write_text('mine')
    (tmp_path / '.y.partial').mkdir()
    (tmp_path / '.z.partial').symlink_to(tmp_path / 'elsewhere')
    before = sorted(tmp_path.rglob('*'))
    remove_left_over(tmp_path)
    assert sorted(tmp_path.rglob('*')) == before


@pytest.mark.parametrize('kind', WRITERS)
def test_nobody_is_there_before(tmp_path, kind):
    """Names cannot be guessed, and two processes have different ones, whatever their ids."""
    names = set()
    for _ in range(2):
        with pytest.raises(KeyError), WRITERS[kind](tmp_path):
            [own] = tmp_path.iterdir()
            assert stat.S_IMODE(own.stat().st_mode) == 0o700
            assert str(os.getpid()) not in own.name.split('.')
            names.add(own.name)
            raise KeyError
    assert len(names) == 2
    assert not list(tmp_path.iterdir())


def test_a_link_is_replaced_and_not_followed(tmp_path):
    (tmp_path / 'target').write_text('precious')
    (tmp_path / 'x.json').symlink_to(tmp_path / 'target')
    write_file(tmp_path / 'x.json', b'{}')
    assert (tmp_path / 'target').read_text() == 'precious'
    assert (tmp_path / 'x.json').read_text() == '{}'


def test_permissions_are_those_of_any_file(tmp_path):
    before = os.umask(0o027)
    try:
        write_file(tmp_path / 'x.json', b'{}')
        with new_folder(tmp_path / 'made' / 'below') as aside:
            (aside / 'x').write_text('')
    finally:
        os.umask(before)
    assert [stat.S_IMODE((tmp_path / name).stat().st_mode) for name in ('x.json', 'made/below', 'made/below/x')] == [
        0o640, 0o750, 0o640]


@pytest.mark.parametrize('name', ['.lines.jsonl.lock', '.lines.jsonl.run'])
def test_a_ledgers_lock_follows_no_link(tmp_path, name):
    (tmp_path / 'target').write_text('precious')
    (tmp_path / name).symlink_to(tmp_path / 'target')
    with pytest.raises((ConfigError, OSError), match='symbolic links'):
        Ledger(tmp_path / 'lines.jsonl', {})
        with only_run(tmp_path / 'lines.jsonl'):
            pass
    assert (tmp_path / 'target').read_text() == 'precious'


def test_a_lock_does_not_change_a_file(tmp_path):
    (tmp_path / 'lock').write_text('mine')
    with locked(tmp_path / 'lock'), take(tmp_path / 'lock'):
        pass
    assert (tmp_path / 'lock').read_text() == 'mine'


def test_a_folder_that_is_not_there(tmp_path):
    with pytest.raises(ConfigError, match='x.json: cannot be written'):
        write_file(Path(tmp_path, 'missing', 'x.json'), b'')
