"""Files and folders that get their names when they are complete."""
from __future__ import annotations

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.utils.partial_folders import partial_folder
from mmbignas.utils.rules import must_be


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
        ConfigError: when that exists, or cannot be made.
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
    """A path to write to; at the end it takes the place of the file, and after an exception it is gone."""
    path = Path(path)
    with partial_folder(path) as folder:
        yield folder / path.name
        os.replace(folder / path.name, path)


@contextmanager
def written_together(folder: Path, names: Sequence[str]) -> Iterator[list[Path]]:
    """Files to write to, which get their names when all of them are complete.

    Args:
        folder: where they belong; it is made if it is not there.
        names: what they are to be called; until then, they lie in a hidden folder beside.

    Raises:
        ConfigError: for a folder that cannot be written to.
    """
    with ExitStack() as stack:
        try:
            folder.mkdir(parents=True, exist_ok=True)
            aside = stack.enter_context(partial_folder(folder / names[0]))
        except OSError as error:
            raise ConfigError(f'{folder}: cannot be written to ({error.strerror}); give a folder that can be made or '
                              'written to') from error
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
