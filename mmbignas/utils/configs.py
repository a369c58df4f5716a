"""Configs: the class that a dict names, and wrong keys and types in one line."""
from __future__ import annotations

import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from mmbignas.errors import ConfigError
from mmbignas.utils.rules import in_one_line

BUILDERS = ('mmengine', 'mmcv')  # packages that build things from configs
_TYPE = re.compile('is not in the .* registry|Cannot find .* in registry|must contain the key "type"')
_NO_CONFIG = re.compile('^(cfg (should|must) be a dict|type must be a str)')
_KEY = 'got an unexpected keyword argument'
_NO_OPTIMIZER = 'None is not a callable object'  # MMEngine does not look at what its look-up gave


def type_name(cfg: Mapping[str, Any]) -> str:
    """The class name in a config whose ``type`` is a name, with or without scope, or a class; '' without one."""
    kind = cfg.get('type', '')
    return str(getattr(kind, '__name__', kind)).rsplit('.', 1)[-1]


@contextmanager
def typos_explained() -> Iterator[None]:
    """Turn MMEngine's errors for keys and types that do not exist into errors of one line; let others through.

    Raises:
        ConfigError: for a key that a class does not take, or a type that is in no registry, where something is built
            from a config. It says what MMEngine says, and where a constructor has passed the key on.
    """
    try:
        yield
    except (KeyError, TypeError) as error:
        message = _typo(error)
        if message is None:
            raise
        raise ConfigError(message) from error


def _typo(error: KeyError | TypeError) -> str | None:
    """What is wrong with the config; ``None`` for an error of another kind."""
    text = str(error.args[0]) if error.args else ''
    frames = traceback.extract_tb(error.__traceback__)
    built = [index for index, frame in enumerate(frames) if {*Path(frame.filename).parts} & {*BUILDERS}]
    if not built:
        return None
    if isinstance(error, KeyError):
        found = _TYPE.search(text)  # MMCV forgets which type it was, but not of which part
        unnamed = 'find None' in text or 'the cfg dict' in text
        return in_one_line(text.split('. ')[0]) + (f' ({frames[-1].name})' if unnamed else '') if found else None
    if text == _NO_OPTIMIZER:
        return 'optim_wrapper.optimizer.type is not in the optimizer registry'
    if _NO_CONFIG.match(text) and built[-1] == len(frames) - 1:
        return in_one_line(text)
    passed_on = frames[built[-1] + 1:]
    if _KEY not in text or any(frame.name != '__init__' for frame in passed_on):
        return None
    return text + ''.join(f' ({Path(frame.filename).name}:{frame.lineno})' for frame in passed_on[-1:])
