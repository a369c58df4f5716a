"""Writing the file that somebody deploys."""
from __future__ import annotations

from pathlib import Path

from mmbignas.errors import ConfigError
from mmbignas.replacing import replacing


def check_new_file(path: str | Path, suffix: str, overwrite: bool) -> Path:
    """Make sure that a file can be written, before the work that it takes to fill it.

    Args:
        path: the file.
        suffix: what its name has to end in, such as ``.onnx``.
        overwrite: whether a file that is there may be replaced.

    Returns:
        Path: the file.

    Raises:
        ConfigError: for another suffix, a file that is there, or a folder that is not.
    """
    path = Path(path)
    if path.suffix != suffix:
        raise ConfigError(f'{path}: the file name must end in {suffix}')
    if path.is_dir() or (not overwrite and (path.exists() or path.is_symlink())):
        raise ConfigError(f'{path}: exists; give the name of a new file, or allow it with --overwrite')
    if not path.absolute().parent.is_dir():
        raise ConfigError(f'{path}: its folder does not exist; give a file in a folder that exists')
    return path


def write_file(path: Path, content: bytes) -> None:
    """Write a file that appears when it is complete.

    Args:
        path: the file; one that is there is replaced.
        content: what is in it.

    Raises:
        ConfigError: when it cannot be written.
    """
    try:
        with replacing(path) as aside:
            aside.write_bytes(content)
    except OSError as error:
        raise ConfigError(f'{path}: cannot be written ({error.strerror}); give a file in a folder that can be written '
                          'to') from error
