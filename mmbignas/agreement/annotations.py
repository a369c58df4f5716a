"""Whether annotation files in COCO's format name their categories as the data sets do, and have what metrics read."""
from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmengine.evaluator import Evaluator

from mmbignas.agreement.label_spaces import class_names, difference, listed
from mmbignas.data.leaves import built_leaves
from mmbignas.utils.coco_files import read_categories

CHECKED_IMAGES = 5000  # of each data set, evenly spaced, so that a slow file system costs seconds
LISTED_FILES = 3


@dataclass(frozen=True)
class Categories:
    """What labels stand for in an annotation file, and what the config calls them.

    Args:
        key: place of the file in the config.
        path: the file.
        by_label: the file's names of labels 0, 1, ..., as MMDetection deals them out: the categories whose names are
            among the classes, in the order of the file, whatever the order of the classes.
        unused: the names of the file's other categories.
        classes: the names in the config.
    """

    key: str
    path: str
    by_label: tuple[str, ...]
    unused: tuple[str, ...]
    classes: tuple[str, ...]

    @property
    def lacking(self) -> list[str]:
        """The classes that the file has not."""
        return [name for name in self.classes if name not in self.by_label]

    @property
    def shifted(self) -> bool:
        """Whether some label means one category in the file and another class in the config."""
        return self.by_label != self.classes[:len(self.by_label)]


def categories_of(dataset: Any, key: str) -> list[Categories]:
    """Those of the data sets within a data set that choose categories by name, as MMDetection's COCO does."""
    found = []
    for place, leaf in built_leaves(dataset, key):
        classes, ids = class_names(leaf), getattr(leaf, 'cat2label', None)
        names = read_categories(leaf.ann_file) if classes and isinstance(ids, Mapping) else None
        if names and classes and set(ids or ()) <= set(names) and {names[own] for own in ids or ()} <= set(classes):
            ordered = sorted(ids or (), key=(ids or {}).__getitem__)
            found.append(Categories(f'{place}.ann_file', leaf.ann_file, tuple(names[own] for own in ordered),
                                    tuple(name for own, name in names.items() if own not in (ids or ())),
                                    tuple(classes)))
    return found


def category_lines(stages: Mapping[str, Sequence[Categories]]) -> Iterator[str]:
    """What is wrong with the categories of annotation files.

    A file may have fewer categories than there are classes, and more. But MMDetection numbers the categories that it
    finds, so where one in the middle is lacking, the labels behind it get wrong names.

    Args:
        stages: ``train``, ``val``, ... -> the files of its data sets.
    """
    for files in stages.values():
        # One of several data sets may lack what another has.
        open_ones = {name for own in files for name in own.classes} - {name for own in files for name in own.by_label}
        for own in files:
            lacking = [name for name in own.lacking if name in open_ones]
            if not own.by_label or lacking and own.unused:
                yield (f'{own.key}: {own.path} must have categories named as in metainfo.classes, it '
                       f'{"has none of them" if not own.by_label else f"lacks {listed(lacking)}"} and has '
                       f'{listed(own.unused)} instead')
            elif own.shifted:
                yield (f'{own.key}: {own.path} must have its categories in the order of metainfo.classes, '
                       f'by which MMDetection numbers them; it {_order(own)}')


def _order(own: Categories) -> str:
    if own.lacking:
        label = next(index for index, name in enumerate(own.by_label) if name != own.classes[index])
        return (f'lacks {listed(own.lacking)}, so that label {label} is {own.by_label[label]!r} there and '
                f'{own.classes[label]!r} in metainfo.classes')
    return difference(own.by_label, own.classes)


def metric_categories(evaluator: Evaluator, key: str) -> list[Categories]:
    """Those of the annotation files of metrics; ``key`` is the evaluator's place."""
    found = []
    for index, place, metric, content in _metric_files(evaluator, key):
        meta = metric.dataset_meta
        meta = meta[index] if isinstance(meta, list) and index < len(meta) else meta
        classes = meta.get('classes') if isinstance(meta, Mapping) else None
        if isinstance(classes, (list, tuple)) and not hasattr(metric, '_lvis_api'):
            names = [str(own.get('name')) for own in content.get('categories') or ()]
            found.append(Categories(
                f'{place}.ann_file', 'the file', tuple(name for name in names if name in classes),
                tuple(name for name in names if name not in classes), tuple(classes)))
    return found


def metric_file_lines(evaluator: Evaluator, key: str) -> Iterator[str]:
    """What COCO's evaluation reads of annotations, and the annotation file of a metric does not have."""
    for _, place, metric, content in _metric_files(evaluator, key):
        needed = ['iscrowd', 'area', *(['segmentation'] if 'segm' in getattr(metric, 'metrics', ()) else [])]
        for field in needed:
            lacking = next((own for own in content.get('annotations') or () if field not in own), None)
            if lacking is not None:
                yield f'{place}.ann_file: annotation {lacking.get("id")} must have {field!r}, got {sorted(lacking)}'


def _metric_files(evaluator: Evaluator, key: str) -> Iterator[tuple[int, str, Any, Mapping[str, Any]]]:
    """Number, place, metric and content of the file of each metric that has read one in COCO's format."""
    for index, metric in enumerate(evaluator.metrics):
        content = getattr(getattr(metric, '_coco_api', None), 'dataset', None)
        if isinstance(content, Mapping):
            yield index, f'{key}[{index}]' if len(evaluator.metrics) > 1 else key, metric, content


def image_lines(dataset: Any, key: str) -> Iterator[str]:
    """The image files of a data set that are not there or empty, as far as they are read from the local disk."""
    for place, leaf in built_leaves(dataset, key):
        if not hasattr(leaf, 'get_data_info') or not _reads_local_files(leaf):
            continue
        count = len(leaf)
        paths = (leaf.get_data_info(index).get('img_path')
                 for index in range(0, count, max(1, count // CHECKED_IMAGES)))
        bad = [path for path in paths if isinstance(path, str) and '://' not in path and not _has_content(path)]
        if bad:
            more = f' and {len(bad) - LISTED_FILES} more' * (len(bad) > LISTED_FILES)
            yield f'{place}: images must be files that are not empty, got {", ".join(bad[:LISTED_FILES])}{more}'


def _reads_local_files(leaf: Any) -> bool:
    """Whether images are loaded by their path alone, and have to be there."""
    transforms = getattr(getattr(leaf, 'pipeline', None), 'transforms', ())
    loaders = [own for own in transforms if type(own).__name__ == 'LoadImageFromFile']
    return bool(loaders) and not any(
        getattr(own, name, None) for own in loaders for name in ('backend_args', 'file_client_args', 'ignore_empty'))


def _has_content(path: str) -> bool:
    try:
        return os.path.getsize(path) > 0
    except OSError:
        return False
