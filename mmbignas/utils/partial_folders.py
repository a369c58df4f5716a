"""Folders for what is not complete yet, beside what it will be.

Each is new, for its process alone, and under a name that nobody can guess, so nothing in it can be a link that somebody
else has put there, and no two processes share one, in whatever containers they are. It holds a lock as long as its
process lives. What a killed process has left is known by that, and is removed by the next one that writes there.
"""
from __future__ import annotations

import fcntl
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from mmbignas.utils.locks import open_lock

SUFFIX, LOCK = '.partial', '.mmbignas.lock'


@contextmanager
def partial_folder(path: str | Path) -> Iterator[Path]:
    """A folder of its own, on the same file system as a path that it is called after; it is gone in the end.

    Args:
        path: what will be complete; its folder exists.

    Raises:
        OSError: nothing can be made there.
    """
    path = Path(path)
    remove_left_over(path.parent)
    folder = Path(tempfile.mkdtemp(dir=path.parent, prefix=f'.{path.name}.', suffix=SUFFIX))
    try:
        with open_lock(folder / 'new') as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            os.rename(folder / 'new', folder / LOCK)  # nobody finds it before it is locked
            yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def remove_left_over(folder: str | Path) -> None:
    """Remove what killed processes have left in a folder, and leave alone what living ones write to."""
    for left in Path(folder).glob(f'.*{SUFFIX}'):
        if left.is_symlink() or not (left / LOCK).is_file():
            continue  # not one of these, or its process has not locked it yet
        try:
            with open_lock(left / LOCK) as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(left, ignore_errors=True)
        except OSError:
            continue  # a living process has it, or another one is removing it
