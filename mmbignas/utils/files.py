"""Files and folders that get their names when they are complete."""
from __future__ import annotations

import errno
import hashlib
import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.utils.partial_folders import SUFFIX, partial_folder
from mmbignas.utils.rules import must_be

NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)
TORCH_WRITER = 'PytorchStreamWriter'  # raises a RuntimeError without a reason when its file cannot be written


@contextmanager
def writing(path: str | Path) -> Iterator[None]:
    """Say in one line what cannot be written, on a disk that is full or a folder that is not to be written to.

    Other errors pass through.

    Args:
        path: what is being written; where the error itself names another file, that one is named.

    Raises:
        ConfigError: naming the file.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in (*NO_ROOM, *NOT_WRITABLE):
            raise
        own = str(error.filename or '')
        named = path if not own or SUFFIX in own else own  # not the name that it has until it is complete
        raise _not_written(named, str(error.strerror), error.errno in NO_ROOM) from error
    except RuntimeError as error:
        if TORCH_WRITER not in str(error):
            raise
        raise _not_written(path, 'the disk may be full', True) from error


def _not_written(path: Any, reason: str, full: bool) -> ConfigError:
    hint = 'make room, and run the same command again' if full else 'give a folder that can be written to'
    return ConfigError(f'{path}: cannot be {"" if full else "read or "}written ({reason}); {hint}')


def check_new_folder(folder: str | Path) -> None:
    """Raise a ConfigError if there is a folder, or anything else, of this name."""
    try:
        there = Path(folder).exists() or Path(folder).is_symlink()
    except OSError as error:  # a name that is too long
        raise ConfigError(f'{folder}: cannot be made ({error.strerror}); give a folder that can be made') from error
    if there:
        raise ConfigError(f'{folder}: exists, and nothing is overwritten; give the name of a new folder')


@contextmanager
def new_folder(folder: str | Path) -> Iterator[Path]:
    """A folder to write to, which gets its name when it is complete; after an exception there is none.

    Raises:
        ConfigError: when that exists, or cannot be made or written to.
    """
    folder = Path(folder)
    check_new_folder(folder)
    made = [parent for parent in folder.parents if not parent.exists()]
    with ExitStack() as stack:
        stack.callback(_remove_empty, made)
        try:
            folder.parent.mkdir(parents=True, exist_ok=True)
            aside = stack.enter_context(partial_folder(folder)) / folder.name
            aside.mkdir()
        except OSError as error:
            raise ConfigError(f'{folder}: cannot be made ({error.strerror}); give a folder that can be made') from error
        with writing(folder):
            yield aside
        check_new_folder(folder)  # somebody else may have made it meanwhile; replace would take an empty one over
        aside.replace(folder)


def _remove_empty(folders: Sequence[Path]) -> None:
    """Remove folders, the innermost first, until one is not empty."""
    with suppress(OSError):
        for folder in folders:
            folder.rmdir()


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to; at the end it takes the place of the file, and after an exception it is gone.

    Raises:
        ConfigError: on a full disk, or in a folder that cannot be written to.
    """
    path = Path(path)
    with writing(path), partial_folder(path) as folder:
        yield folder / path.name
        os.replace(folder / path.name, path)


@contextmanager
def written_together(folder: Path, names: Sequence[str]) -> Iterator[list[Path]]:
    """Files to write to, which get their names when all of them are complete.

    Args:
        folder: where they belong; it is made if it is not there.
        names: what they are to be called; until then, they lie in a hidden folder beside.

    Raises:
        ConfigError: for a folder that cannot be written to, or a full disk.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            aside = stack.enter_context(partial_folder(folder / names[0]))
        except OSError as error:
            raise ConfigError(f'{folder}: cannot be written to ({error.strerror}); give a folder that can be made or '
                              'written to') from error
        with writing(folder):
            yield [aside / name for name in names]
            for name in names:
                os.replace(aside / name, folder / name)


def check_new_file(path: str | Path, suffixes: str | tuple[str, ...], overwrite: bool) -> Path:
    """Return the path of a file that can be written, before the work that it takes to fill it.

    Args:
        path: the file.
        suffixes: what its name has to end in, such as ``.onnx``; one of several.
        overwrite: whether a file that is there may be replaced.

    Raises:
        ConfigError: for another suffix, a file that is there, or a folder that is not.
    """
    path = Path(path)
    if not path.name.endswith(suffixes):
        allowed = suffixes if isinstance(suffixes, str) else ' or '.join(suffixes)
        raise must_be('the file', f'one that ends in {allowed}', str(path))
    if path.is_dir() or (not overwrite and (path.exists() or path.is_symlink())):
        raise ConfigError(f'{path}: exists; give the name of a new file, or allow it with --overwrite')
    if not path.absolute().parent.is_dir():
        raise ConfigError(f'{path}: its folder does not exist; give a file in a folder that exists')
    return path


def write_json(path: Path, content: Any) -> None:
    """Write plain data as JSON that any program can read, as :func:`write_file` does.

    Args:
        path: the file.
        content: the data, without numbers that are not finite; of what JSON does not know, ``str`` is written.
    """
    write_file(path, (json.dumps(content, indent=2, default=str, allow_nan=False) + '\n').encode())


def write_file(path: Path, content: bytes) -> None:
    """Write a file that appears when it is complete, in place of one that is there.

    Raises:
        ConfigError: when it cannot be written.
    """
    try:
        with replacing(path) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise ConfigError(f'{path}: cannot be written ({error.strerror}); give a file in a folder that exists and can '
                          'be written to') from error


def file_hash(path: str | Path) -> str:
    """SHA-256 of a file, in hexadecimal digits."""
    digest = hashlib.sha256()
    with open(path, 'rb') as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
