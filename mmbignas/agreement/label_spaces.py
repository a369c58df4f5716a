"""Whether data sets, heads and checkpoints mean the same classes, by number and by name."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from torch import nn

from mmbignas.data.leaves import built_leaves, source_of
from mmbignas.utils.rules import must_be, shown

# What heads with the classes of the data are called in models of MMDetection and MMPretrain; an RPN has others.
HEADS = ('head', 'bbox_head', 'mask_head', 'query_head')
ABOVE = ('roi_head', 'detector', 'student', 'teacher', 'module')  # what they may stand in
NAMED = 5  # names in a message


def label_lines(model: nn.Module, datasets: Mapping[str, Any]) -> Iterator[str]:
    """What is wrong with the classes of data sets and of a model's heads.

    Args:
        model: a model, not a wrapper. Where it finds classes by their description, any data will do.
        datasets: place in the config, e.g. ``train_dataloader.dataset``, -> data set. The first one counts.

    Yields:
        str: one line for each data set or head whose classes are no names, or not those of the first data set.
    """
    if getattr(model, 'language_model', None) is not None:
        return
    leaves = [leaf for key, dataset in datasets.items() for leaf in built_leaves(dataset, key)]
    yield from (line for key, leaf in leaves for line in _no_names(key, leaf))
    spaces = [(key, leaf, names) for key, leaf in leaves if (names := class_names(leaf))]
    if not spaces:
        return
    first, leaf, expected = spaces[0]
    for path, count in heads_of(model).items():
        if count != len(expected):
            yield str(must_be(f'model.{path}.num_classes', f'{len(expected)}, the number of classes of {first} '
                              f'({_origin(leaf)}{shown(tuple(expected))})', count))
    for key, leaf, names in spaces[1:]:
        if names != expected:
            yield (f'{key}: classes must be those of {first}, {difference(names, expected)} '
                   f'({_origin(leaf)}{shown(tuple(names))})')


def checkpoint_lines(classes: Sequence[str] | None, path: str, datasets: Mapping[str, Any]) -> Iterator[str]:
    """The data sets whose classes are not those that a checkpoint was trained for.

    Args:
        classes: of the checkpoint; ``None`` where it does not tell.
        path: of the checkpoint.
        datasets: as for :func:`label_lines`.
    """
    for key, dataset in datasets.items() if classes else ():
        for place, leaf in built_leaves(dataset, key):
            names = class_names(leaf)
            if names and names != list(classes or ()):
                yield (f'{place}: classes must be those of {path}, {difference(names, list(classes or ()))} '
                       f'({_origin(leaf)}{shown(tuple(names))})')


def class_names(leaf: Any) -> list[str] | None:
    """The names of a data set's classes, in the order of the labels; ``None`` for one that does not tell.

    Neither does a panoptic one, since each of its heads has a part of the classes.
    """
    metainfo = getattr(leaf, 'metainfo', None)
    if not isinstance(metainfo, Mapping) or 'thing_classes' in metainfo:
        return None
    classes = metainfo.get('classes')
    return [str(name) for name in classes] if isinstance(classes, (list, tuple)) and classes else None


def heads_of(model: nn.Module) -> dict[str, int]:
    """Path -> ``num_classes`` of the heads that have as many as the data: also several, in a list or below another."""
    heads = {}
    for path, module in model.named_modules():
        *above, name = [part for part in path.split('.') if not part.isdigit()] or ['']
        count = getattr(module, 'num_classes', None)
        if name in HEADS and {*above} <= {*ABOVE} and isinstance(count, int) and count > 0:
            heads[path] = count
    return heads


def difference(names: Sequence[str], expected: Sequence[str]) -> str:
    """In what names differ from others, for messages."""
    lacking, more = [own for own in expected if own not in names], [own for own in names if own not in expected]
    parts = [f'has {len(names)} instead of {len(expected)}'] if len(names) != len(expected) else []
    parts += [f'{what} {listed(own)}' for what, own in (('lacks', lacking), ('has also', more)) if own]
    if not parts:
        label = next(index for index, pair in enumerate(zip(names, expected)) if pair[0] != pair[1])
        parts = [f'has another order: label {label} is {names[label]!r} instead of {expected[label]!r}']
    return ', '.join(parts)


def listed(names: Sequence[str]) -> str:
    """The first of many names, and how many more there are."""
    rest = len(names) - NAMED
    return ', '.join(map(repr, names[:NAMED])) + f' and {rest} more' * (rest > 0)


def _no_names(key: str, leaf: Any) -> Iterator[str]:
    """What is no list of names, or stands in the wrong place."""
    metainfo = getattr(leaf, 'metainfo', None)
    if not isinstance(metainfo, Mapping):
        return
    classes = metainfo.get('classes')
    if metainfo.get('CLASSES') not in (None, classes):
        yield f'{key}.metainfo must have classes, not CLASSES, which are not read: {shown(metainfo["CLASSES"])}'
    if isinstance(classes, str):
        yield str(must_be(f'{key}.metainfo.classes', f'a list or tuple of names, such as ({classes!r}, ), or a file '
                          'with one a line', classes))


def _origin(leaf: Any) -> str:
    source = source_of(leaf)
    return f'{source}: ' if source else ''
