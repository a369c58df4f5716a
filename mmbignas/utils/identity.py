"""What results depend on, by name, so that those of different networks, data or evaluations are never mixed.

An identity is a flat dict: the place of each setting in the config -> its value, or a hash of a long one, beside hashes
of weights, space and data. Everything counts but what is known not to matter, so what nobody has thought of does.
"""
from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath
from typing import Any

from mmbignas.utils.files import file_hash
from mmbignas.utils.rules import shown

# Where files lie says nothing about what is in them. Weights count by their values.
PLACES = ('data_root', 'data_prefix', 'img_path', 'work_dir', 'out_dir', 'output_dir', 'save_dir', 'outfile_prefix',
          'out_file_path', 'backend_args', 'file_client_args', 'init_cfg', 'pretrained', 'collect_dir')
# How a batch is loaded, on what it is computed, and what is said about it.
MACHINE = ('num_workers', 'persistent_workers', 'pin_memory', 'pin_memory_device', 'prefetch_factor', 'timeout',
           'worker_init_fn', 'multiprocessing_context', 'serialize_data', 'device', 'collect_device', 'with_cp',
           'logger', 'print_log', 'verbose')
IRRELEVANT = frozenset((*PLACES, *MACHINE))
ANNOTATIONS = 'ann_file'
HOOKS = ('custom_hooks', 'default_hooks')  # parts of a config whose files may be written by a run
LONGEST = 80  # characters of a value that is kept as it is
NAMED = 6  # differences in a message


def settings_of(**parts: Any) -> dict[str, Any]:
    """The settings in parts of a config that results can depend on.

    A file counts by its content, that of a hook by its name, and a folder not at all. Of what is no plain value, such
    as a class, the name counts.

    Args:
        **parts: name of a part, e.g. ``model`` -> what the config says there.

    Returns:
        dict: place of each setting, e.g. ``model.data_preprocessor.mean`` -> its value as JSON can hold it, at most
        :data:`LONGEST` characters long, or a hash.
    """
    return dict(_settings(parts, '', ''))


def config_hash(config: Any) -> str:
    """Hash of a config or other nested data, of the same things as in :func:`settings_of`."""
    return _hash(_plain(config, '', ''))


def differences(found: Mapping[str, Any], expected: Mapping[str, Any]) -> list[str]:
    """What differs between the identity that was found with results and that of a run.

    Returns:
        list: a text for each difference, the values of settings in it; parts of which the other side says nothing at
        all, as of an earlier version, are named as a whole. Empty where both are the same.
    """
    both = [name for name in expected if name in found and found[name] != expected[name]]
    texts = [f'{name} ({shown(found[name])} there, {shown(expected[name])} here)'
             if not _is_hash(found[name]) and not _is_hash(expected[name]) else name for name in both]
    for one, other, where in ((expected, found, 'there'), (found, expected, 'here')):
        known = {part_of(name) for name in other}
        lacking = dict.fromkeys(name if part_of(name) in known else part_of(name) for name in one if name not in other)
        texts += [f'{name} (nothing about it {where})' for name in lacking]
    return texts


def listed_differences(texts: Sequence[str]) -> str:
    """Some differences in one line."""
    rest = len(texts) - NAMED
    return ', '.join(texts[:NAMED]) + (f' and {rest} more' if rest > 0 else '')


def _settings(value: Any, key: str, root: str) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        root = str(value.get('data_root') or root)
        counting = {name: own for name, own in value.items() if name not in IRRELEVANT}
        for name, own in counting.items():
            yield from _settings(own, f'{key}.{name}' if key else str(name), root)
        if not counting:
            yield key, {}
    elif isinstance(value, (list, tuple)) and any(_is_config(own) for own in value):
        for index, own in enumerate(value):
            yield from _settings(own, f'{key}[{index}]', root)
    else:
        plain = _plain(value, HOOKS[0] if part_of(key) in HOOKS else key.rpartition('.')[2], root)
        text = json.dumps(plain, sort_keys=True)
        yield key, plain if len(text) <= LONGEST else _hash(text)


def _is_config(value: Any) -> bool:
    """Whether settings have places of their own below a list."""
    return isinstance(value, Mapping) or isinstance(value, (list, tuple)) and any(map(_is_config, value))


def _plain(value: Any, name: str, root: str) -> Any:
    """A value as JSON can hold it."""
    if isinstance(value, (str, Path)):
        return _text(str(value), name, root)
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Mapping):
        root = str(value.get('data_root') or root)
        return {str(own): _plain(item, str(own), root) for own, item in value.items() if own not in IRRELEVANT}
    if isinstance(value, (list, tuple, set, frozenset)):
        own = [_plain(item, name, root) for item in value]
        return sorted(own, key=str) if isinstance(value, (set, frozenset)) else own
    if hasattr(value, 'tolist'):
        return _plain(value.tolist(), name, root)
    named = value if hasattr(value, '__qualname__') else type(value)
    return f'{named.__module__}.{named.__qualname__}'


def _text(value: str, name: str, root: str) -> str:
    """A string; for the name of a file, the hash of its content, or its last part where it is not here."""
    if name in HOOKS:
        return PurePath(value).name if '/' in value else value
    looks_like_one = name != 'type' and ('/' in value or '.' in value)
    for path in (Path(root, value), Path(value)) if looks_like_one else ():
        try:
            if path.is_file():
                return file_hash(path)
            if '/' in value and path.is_dir():
                return 'a folder'
        except (OSError, ValueError):  # no name that a file can have
            return value
    return PurePath(value).name if name == ANNOTATIONS else value


def _hash(content: Any) -> str:
    text = content if isinstance(content, str) else json.dumps(content, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _is_hash(value: Any) -> bool:
    return isinstance(value, str) and len(value) == 64 and not value.strip('0123456789abcdef')


def part_of(name: str) -> str:
    """The part of a config that a setting is in: ``model`` of ``model.backbone.depth``."""
    return name.partition('.')[0].partition('[')[0]
