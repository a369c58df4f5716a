"""Checkpoint files that are written whole or not at all, and the newest one that can be read."""
from __future__ import annotations

import os
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path

from mmengine.fileio import LocalBackend, register_backend
from mmengine.runner import CheckpointLoader

from mmbignas.errors import ConfigError
from mmbignas.utils.files import replacing
from mmbignas.utils.partial_folders import remove_left_over
from mmbignas.utils.sealed_files import DAMAGED, is_as_written, sealed

BACKEND = 'mmbignas.whole_files'
LAST = 'last_checkpoint'
STOPPED = 'stopped.pth'


class WholeFilesBackend(LocalBackend):
    """MMEngine's backend for local files, except that a file is on the disk in full before it gets its name.

    A file of ``torch.save`` also gets a digest of all that is in it, see :mod:`mmbignas.utils.sealed_files`. It is
    ``backend_args=dict(backend='mmbignas.whole_files')`` of MMEngine's ``CheckpointHook``.
    """

    def put(self, obj: bytes, filepath: str | Path) -> None:
        """Write a file, into folders that are made; until it is complete, what was there before stays."""
        Path(filepath).parent.mkdir(parents=True, exist_ok=True)
        with replacing(filepath) as aside, open(aside, 'wb') as file:
            for piece in sealed(obj):
                file.write(piece)
            file.flush()
            os.fsync(file.fileno())

register_backend(BACKEND, WholeFilesBackend, force=True)


def write_last(work_dir: str | Path, checkpoint: str) -> None:
    """Write MMEngine's note of the last checkpoint into the folder of a run."""
    with replacing(Path(work_dir, LAST)) as aside:
        aside.write_text(checkpoint)


def newest_checkpoint(work_dir: str | Path, patterns: Sequence[str], warn: Callable[[str], object]) -> str | None:
    """The checkpoint of a run to resume from; ``None`` where nothing was saved.

    It is the one that MMEngine's ``last_checkpoint`` names. Where this one cannot be read, or the note itself is
    missing, it is the newest that can.

    Args:
        work_dir: folder of the run.
        patterns: of the names of the run's checkpoints.
        warn: takes a message about each checkpoint that is skipped.

    Raises:
        ConfigError: where something was saved, but nothing can be read.
    """
    folder, note = Path(work_dir), Path(work_dir, LAST)
    named = note.read_text().strip() if note.is_file() else ''
    folders = dict.fromkeys([folder, *([Path(named).parent] if named else [])])
    for own in folders:
        remove_left_over(own)
    others = {path for own in folders for pattern in patterns for path in own.glob(pattern) if path != Path(named)}
    candidates = [named] if named else []
    candidates += [str(path) for path in sorted(others, key=lambda path: path.stat().st_mtime_ns, reverse=True)]
    passed: list[str] = []
    for path in candidates:
        problem = what_is_broken(path)
        if problem is None:
            if passed:
                warn(f'resuming from {path} in place of what cannot be read: {"; ".join(passed)}')
            elif not named:
                warn(f'{note} does not name a checkpoint; resuming from the newest, {path}')
            return path
        passed.append(f'{path} {problem}')
    if not candidates and not note.is_file():
        return None
    reason = '; '.join(passed) or f'{note} is empty'
    raise ConfigError(f'resume: no checkpoint in {work_dir} can be read ({reason}); work_dir must have a whole '
                      f'checkpoint, or, to begin from the start, none at all and no {LAST}')


def what_is_broken(path: str | Path) -> str | None:
    """What is wrong with a local file of ``torch.save``, if anything.

    The file is loaded, which compares its digest. One without a digest is read whole, and its checksums are compared.
    """
    if not Path(path).is_file():
        return 'does not exist'
    try:
        as_written = is_as_written(path)
        if as_written is False:
            return f'is truncated or damaged ({DAMAGED})'
        if as_written is None:
            with zipfile.ZipFile(path) as file:
                damaged = file.testzip()
            if damaged is not None:
                return f'is damaged ({damaged})'
        CheckpointLoader.load_checkpoint(str(path), map_location='cpu', logger='silent')
    except Exception as error:  # of a dozen kinds, depending on which bytes are wrong
        return f'is truncated or damaged ({" ".join(str(error).split()) or type(error).__name__})'
    return None
