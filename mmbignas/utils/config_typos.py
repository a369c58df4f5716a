"""Wrong keys and types in a config, told from mistakes of a program."""
from __future__ import annotations

import difflib
import inspect
import re
import traceback
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from mmengine.registry import Registry
from torch.utils.data import DataLoader

from mmbignas.errors import ConfigError

NEAREST = 3
TYPES = ('obj_type', 'scheduler_type', 'layer_type', 'padding_type')  # in MMEngine's and MMCV's look-ups
GIVEN = ('params', 'optimizer')  # what MMEngine puts into a config before it builds from it
_LOOK_UP = re.compile('is not in the .* registry|Cannot find .* in registry')
_KEYWORD = re.compile(r"got an unexpected keyword argument '(\w+)'")
_POSITIONAL = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD)


@contextmanager
def typos_explained() -> Iterator[None]:
    """Turn the errors that :func:`explain_typo` knows into errors of one line; let others through.

    Raises:
        ConfigError: for a key or a type in a config that does not exist, where MMEngine builds something from it.
    """
    try:
        yield
    except (KeyError, TypeError) as error:
        message = explain_typo(error)
        if message is None:
            raise
        raise ConfigError(message) from error


def explain_typo(error: KeyError | TypeError) -> str | None:
    """What is wrong with a config, where that is why something could not be built from it.

    A ``TypeError`` is about the config if the argument that nobody expects stands in it and is not in the signature of
    the class that was being built: otherwise the class itself has passed it on to something. A ``KeyError`` is if it
    comes from the look-up of a ``type``.

    Args:
        error: with its traceback.

    Returns:
        str: one line with the class or type and the nearest that are allowed; ``None`` for an error of another kind.
    """
    while type(error.__context__) is type(error):  # some releases of MMEngine raise it anew on the way out
        error = error.__context__
    frames = [frame.f_locals for frame, _ in traceback.walk_tb(error.__traceback__)]
    if isinstance(error, KeyError):
        kind = next((frames[-1][name] for name in TYPES if name in frames[-1]), None)
        registry = frames[-1].get('registry')
        found = isinstance(kind, str) and isinstance(registry, Registry) and _LOOK_UP.search(str(error))
        return _wrong_type(str(kind), registry) if found else None
    for own in reversed(frames):
        if own.get('optimizer_cls', own) is None:  # MMEngine does not look at what its look-up gave
            return _wrong_type(own['optimizer_cfg']['type'], own['registry'])
    keyword = _KEYWORD.search(str(error))
    built = next(filter(None, map(_being_built, reversed(frames))), None)
    return None if keyword is None or built is None else _wrong_key(keyword[1], *built)


def _being_built(names: Mapping[str, Any]) -> tuple[Any, Mapping[str, Any], Mapping[str, Any]] | None:
    """Class, config, and the config with MMEngine's own arguments, by the names in a function that builds things."""
    if 'dataloader_cfg' in names:
        return DataLoader, names['dataloader_cfg'], names['dataloader_cfg']
    kind = names.get('obj_cls', names.get('scheduler_cls'))
    return None if kind is None or not {'cfg', 'args'} <= set(names) else (kind, names['cfg'], names['args'])


def _wrong_key(key: str, built: Any, cfg: Mapping[str, Any], args: Mapping[str, Any]) -> str | None:
    allowed = [name for name in _keywords(built)
               if name not in GIVEN and (name in cfg or name not in args)]
    if key not in cfg or key in allowed:
        return None
    nearest = difflib.get_close_matches(key, allowed, NEAREST)
    return (f'{built.__name__}.{key}: there is no such key; ' + (f'nearest: {", ".join(nearest)}; ' if nearest else '')
            + f'allowed: {", ".join(sorted(allowed)) or "none"}')


def _keywords(built: Any) -> list[str]:
    """Names of the arguments, also of those that constructors pass on to the classes that they derive from."""
    if not inspect.isclass(built):
        return [own.name for own in inspect.signature(built).parameters.values() if own.kind not in _POSITIONAL]
    names: dict[str, None] = {}
    for parent in built.__mro__:
        if '__init__' in vars(parent) and parent is not object:
            parameters = [*inspect.signature(vars(parent)['__init__']).parameters.values()][1:]
            names.update({own.name: None for own in parameters if own.kind not in _POSITIONAL})
            if all(own.kind is not inspect.Parameter.VAR_KEYWORD for own in parameters):
                break
    return list(names)


def _wrong_type(kind: str, registry: Registry) -> str:
    root = registry
    while root.parent is not None:
        root = root.parent
    families: dict[str, dict[str, None]] = {}  # a class name -> the types that have it
    for room in _tree(root):
        for name in room.module_dict:
            known = name if registry in (room, *_tree(room)) else f'{room.scope}.{name}'
            families.setdefault(name.rsplit('.', 1)[-1], {})[known] = None
    nearest = difflib.get_close_matches(kind.rsplit('.', 1)[-1], families, NEAREST)
    types = [known for name in nearest for known in families[name]]
    return (f'type={kind!r}: there is no such {registry.name} in the scope {registry.scope}; ' + (
        f'nearest: {", ".join(types)}' if types else 'allowed: registered classes, of packages that custom_imports '
                                                     'names'))


def _tree(registry: Registry) -> Iterator[Registry]:
    yield registry
    for child in registry.children.values():
        yield from _tree(child)
