"""The configs of docs/howto/own_config.md, as they stand there: trained for two iterations, evaluated and exported."""
from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import reduce
from operator import getitem
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from mmengine.config import Config
from mmengine.registry import DefaultScope

from mmbignas.export.subnet_folder import read_back
from mmbignas.supernet import Supernet
from mmbignas.supernet.build import build_model
from tests.models.same_network import check_plain_layers
from tests.runs import ROOT, python, records_of

pytest.importorskip('mmpretrain')
pytestmark = pytest.mark.slow
COUNTS = dict(train=4, test=2)
SHORT = ['train_cfg.max_epochs=1', 'train_cfg.val_interval=1', 'custom_hooks.0.num_images=4', 'test_cfg.latency=None',
         *(f'{part}_dataloader.{key}' for part in ('train', 'val', 'test')
           for key in ('batch_size=2', 'num_workers=0', 'persistent_workers=False'))]


def draw(path: Path, rng: np.random.Generator, size: tuple[int, int]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    cv2.imwrite(str(path), rng.integers(0, 256, (*size, 3), dtype=np.uint8))


def draw_cells(folder: Path) -> None:
    """Images of noise with a box each, in COCO format, where the config looks for them."""
    rng = np.random.default_rng(0)
    categories = [dict(id=number + 1, name=name) for number, name in enumerate(('RBC', 'WBC', 'Platelets'))]
    (folder / 'annotations').mkdir(parents=True)
    for split, count in COUNTS.items():
        images = [dict(id=number, file_name=f'{split}{number}.jpg', width=128, height=96) for number in range(count)]
        boxes = [dict(id=number + 1, image_id=number, category_id=number % 3 + 1, bbox=[20, 10, 60, 50], area=3000,
                      iscrowd=0) for number in range(count)]
        for image in images:
            draw(folder / 'images' / str(image['file_name']), rng, (96, 128))
        (folder / 'annotations' / f'{split}.json').write_text(
            json.dumps(dict(images=images, annotations=boxes, categories=categories)))


def draw_trash(folder: Path) -> None:
    """Images of noise in folders of six classes."""
    rng = np.random.default_rng(0)
    for split in COUNTS:
        for label in 'abcdef':
            draw(folder / split / label / '0.jpg', rng, (70, 90))


def at(config: Any, key: str) -> Any:
    """What stands at a place of a config."""
    return reduce(getitem, key.split('.'), config)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With every config of the page, under the name in its first line."""
    text = (ROOT / 'docs' / 'howto' / 'own_config.md').read_text()
    for name, config in re.findall(r'```python\n# (\w+\.py)\n(.*?)```', text, re.DOTALL):
        (tmp_path / name).write_text(config)
    return tmp_path


@pytest.mark.parametrize(('name', 'variable', 'draw_data', 'scope', 'subnets', 'kept'), [
    ('cells', 'BCCD_ROOT', draw_cells, 'mmdet', 3 ** 5 * 2 ** 4 * 3,
     ['bbox_head.anchor_generator', 'bbox_head.loss_cls', 'train_cfg', 'test_cfg']),
    ('trash', 'TRASHNET_ROOT', draw_trash, 'mmpretrain', 2 * 3 * 2 * 5 * 7, ['neck', 'type']),
])
def test_becomes_a_supernet(folder: Path, monkeypatch: pytest.MonkeyPatch, name: str, variable: str,
                            draw_data: Callable[[Path], None], scope: str, subnets: int, kept: list[str]) -> None:
    draw_data(folder / 'data')
    monkeypatch.setenv(variable, str(folder / 'data'))
    with DefaultScope.overwrite_default_scope(scope):
        own, cfg = (Config.fromfile(folder / f'{stem}.py') for stem in (name, f'{name}_supnet'))
        assert Supernet(build_model(cfg)).space.size == subnets
    assert 'space' not in str(own.to_dict())
    for key in kept:
        assert at(cfg.model, key) == at(own.model, key)

    config, run = folder / f'{name}_supnet.py', folder / 'run'
    text = python('tools/train.py', config, '--work-dir', run, '--cfg-options', *SHORT)
    assert 'random1.loss_distill' in text
    assert [line['name'] for line in records_of(run, 'val')] == ['max_calib', 'min_calib']
    python('tools/test.py', config, run / 'epoch_1.pth', '--work-dir', folder / 'tested', '--cfg-options', *SHORT)
    [evaluation] = (json.loads(path.read_text()) for path in (folder / 'tested').glob('*/evaluation.json'))
    assert [line['name'] for line in evaluation['subnets']] == ['max', 'middle', 'min']
    text = python('tools/export_subnet.py', config, run / 'epoch_1.pth', '--subnet', 'min', '--out', folder / 'min',
                  '--cfg-options', *SHORT)
    assert 'equal, bit for bit' in text
    with DefaultScope.overwrite_default_scope(scope):
        plain = read_back(folder / 'min')
    check_plain_layers(plain)
    assert sum(parameter.numel() for parameter in plain.parameters()) == evaluation['subnets'][-1]['params']
