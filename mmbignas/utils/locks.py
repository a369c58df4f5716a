"""Locks on files that processes share, which end with the process that holds them, however it ends.

A lock file is opened without following a symbolic link, so that one that somebody else has put there leads nowhere.
"""
from __future__ import annotations

import errno
import fcntl
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO


@contextmanager
def locked(path: str | Path) -> Iterator[None]:
    """Wait until no other process, and no other thread, has this lock.

    Args:
        path: the lock file; it is made if it is not there.

    Raises:
        OSError: it cannot be made, or is a symbolic link.
    """
    with open_lock(path) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def take(path: str | Path) -> IO[str] | None:
    """Take a lock for as long as the file is open; ``None`` when another process has it.

    Unlike that of :func:`locked`, it is not kept by workers that outlive a kill. Within one process it keeps nobody
    out, and closing any file of this name gives it up.

    Args:
        path: the lock file; it is made if it is not there.

    Raises:
        OSError: it cannot be made, is a symbolic link, or lies where files cannot be locked.
    """
    file = open_lock(path)
    try:
        fcntl.lockf(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        file.close()
        if error.errno in (errno.EACCES, errno.EAGAIN):  # which of them, POSIX leaves open
            return None
        raise
    return file


def open_lock(path: str | Path) -> IO[str]:
    """Open a file to be locked, without a change to what is in it."""
    return open(os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o666), 'r+')
