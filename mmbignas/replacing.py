"""Files that appear when they are complete."""
from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


@contextmanager
def replacing(path: str | Path) -> Iterator[Path]:
    """A path to write to; what is there gets the file's name at the end, and is gone after an exception.

    Args:
        path: the file; one that is there is replaced.
    """
    path = Path(path)
    aside = path.with_name(f'.{path.name}.{os.getpid()}.partial')
    try:
        yield aside
        os.replace(aside, path)
    finally:
        with suppress(OSError):
            aside.unlink()
