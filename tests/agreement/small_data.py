"""Tiny data sets in COCO's format and in folders, written to disk."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
from mmcv import imwrite
from mmdet.registry import DATASETS

NAMES = ('cell', 'rod', 'dot')
PIPELINE = [dict(type='LoadImageFromFile'), dict(type='mmdet.LoadAnnotations', with_bbox=True),
            dict(type='mmdet.PackDetInputs')]


def write_coco(folder: Path, names: Any = NAMES, images: int = 4, size: int = 64, file: str = 'a.json',
               without: tuple[str, ...] = ()) -> dict[str, Any]:
    """Write images with a box of each category, and return the config of their data set."""
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(0)
    content: dict[str, Any] = dict(categories=[dict(id=10 * place + 10, name=name) for place, name in enumerate(names)],
                                   images=[], annotations=[])
    for number in range(images):
        imwrite(rng.integers(0, 255, (size, size, 3), dtype=np.uint8), str(folder / f'{number}.png'))
        content['images'].append(dict(id=number, file_name=f'{number}.png', height=size, width=size))
        for category in content['categories']:
            annotation = dict(id=len(content['annotations']), image_id=number, category_id=category['id'],
                              bbox=[4, 6, 30, 20], area=600, iscrowd=0)
            content['annotations'].append({key: value for key, value in annotation.items() if key not in without})
    (folder / file).write_text(json.dumps(content))
    return dict(type='mmdet.CocoDataset', data_root=str(folder), ann_file=file, data_prefix=dict(img=''),
                metainfo=dict(classes=tuple(NAMES)), pipeline=PIPELINE)


def coco(folder: Path, names: Any = NAMES, classes: Any = NAMES, **options: Any) -> Any:
    """The data set of :func:`write_coco`, in which the classes may be others than those of the file."""
    return DATASETS.build(dict(write_coco(folder, names, **options), metainfo=dict(classes=classes), test_mode=True))
