"""Data that cannot be read, as errors of one line that name the file."""
from __future__ import annotations

import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.utils.coco_files import read_categories
from mmbignas.utils.rules import shown


class DataError(ConfigError):
    """An image or annotation that cannot be read.

    A worker of a dataloader sends its exceptions with their tracebacks as one text; of that, the last line is kept.
    """

    def __init__(self, message: str) -> None:
        last = message.strip().splitlines()[-1] if message.startswith('Caught ') else message
        super().__init__(last.removeprefix(f'{__name__}.DataError: '))


@contextmanager
def data_errors_explained() -> Iterator[None]:
    """Turn what a data set raises while it reads its annotations into an error of one line; let others through.

    Raises:
        ConfigError: with the file, and what is missing or wrong.
    """
    try:
        yield
    except ConfigError:
        raise
    except Exception as error:
        dataset = _reading(error)
        if dataset is None:
            raise
        raise DataError(_explanation(dataset, error)) from error


def one_line(error: BaseException) -> str:
    """Kind and text of an exception in one line, with the line of code that raised it."""
    frames = traceback.extract_tb(error.__traceback__)
    where = f' ({Path(frames[-1].filename).name}:{frames[-1].lineno})' if frames else ''
    text = ' '.join(str(error).split())
    return f'{type(error).__name__}{": " * bool(text)}{text[:300]}{where}'


def _reading(error: BaseException | None) -> Any:
    """The data set that was reading its annotations when an exception was raised; ``None`` if none was."""
    while error is not None:
        for frame, _ in traceback.walk_tb(error.__traceback__):
            own = frame.f_locals.get('self')
            if frame.f_code.co_name == 'full_init' and hasattr(own, 'ann_file'):
                return own
        error = error.__cause__ or error.__context__
    return None


def _explanation(dataset: Any, error: Exception) -> str:
    kind, path, metainfo = type(dataset).__name__, dataset.ann_file, getattr(dataset, 'metainfo', {})
    prefix = getattr(dataset, 'data_prefix', None)
    place = path or (next(iter(prefix.values()), '') if isinstance(prefix, Mapping) else prefix)
    if any(frame.name == '_serialize_data' for frame in traceback.extract_tb(error.__traceback__)):
        # MMEngine joins the annotations of all images, of which there are none.
        found = read_categories(path) if path else None
        names = f'; its categories are {shown(tuple(found.values()))}' if found else ''
        wrong = metainfo.get('CLASSES')
        hint = f'; metainfo has CLASSES, which must be classes: {shown(wrong)}' if wrong else ''
        return (f'{place}: no image is left for {kind} by its filter_cfg and metainfo.classes, '
                f'{shown(metainfo.get("classes"))}{names}{hint}')
    if isinstance(error, KeyError):
        return f'{place}: an image or annotation has no {error.args[0]!r}, which {kind} needs'
    return f'{place}: cannot be read by {kind}, {one_line(error)}'
