"""What a file says of its images is enough: a picture that is prepared by it alone is the one that the model sees."""
from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path
from typing import Any

import mmcv
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.dataset import Compose, pseudo_collate
from mmengine.registry import init_default_scope
from PIL import Image

from mmbignas.export.subnet_folder import SubnetExporter, read_back
from tests.export.detectors import supernet_config
from tests.small_classifiers import regnet_classifier
from tests.small_models import build, scramble

ROOT = Path(__file__).parents[2]
PICTURE = str(ROOT / 'docs' / 'images' / 'bccd_subnets.png')
LOAD = dict(type='LoadImageFromFile')
PACK = dict(type='PackDetInputs', meta_keys=('img_path', 'ori_shape', 'img_shape', 'scale_factor'))
# Scope, model, transforms, image sizes, and whether the smallest subnet's images are resized once more.
CASES: dict[str, tuple[str, Any, list[dict[str, Any]], list[list[int]], bool]] = {
    'edge and crop': ('mmpretrain', regnet_classifier, [
        dict(type='ResizeEdge', scale=128, backend='pillow', interpolation='bicubic'),
        dict(type='CenterCrop', crop_size=96), dict(type='PackInputs')], [[64, 64], [96, 96]], True),
    'long edge, not square': ('mmpretrain', regnet_classifier, [
        dict(type='ResizeEdge', scale=200, edge='width'), dict(type='CenterCrop', crop_size=(128, 64)),
        dict(type='PackInputs')], [[48, 96], [64, 128]], True),
    'stretched, as the pipeline gives it': ('mmpretrain', regnet_classifier, [
        dict(type='Resize', scale=(96, 64), interpolation='area'), dict(type='PackInputs')], [[64, 96]], False),
    'a detector': ('mmdet', supernet_config, [dict(type='Resize', scale=(256, 160), keep_ratio=True), PACK],
                   [[96, 160], [160, 256]], True),
}


def prepared(picture: str, facts: dict[str, Any]) -> np.ndarray:
    """The input of the file, (3, H, W), by what it says of it and nothing of this package."""
    steps, divisor = facts['resize'], facts['pad_size_divisor']
    image = mmcv.imread(picture)  # BGR
    height, width = image.shape[:2]
    if 'edge' in steps:
        side = dict(width=width, height=height, short=min(width, height), long=max(width, height))[steps['edge']]
        size = steps['scale'] * width // side, steps['scale'] * height // side
        image = mmcv.imresize(image, size, interpolation=steps['interpolation'], backend=steps['backend'])
    elif 'scale' in steps:
        resize = mmcv.imrescale if steps['keep_ratio'] else mmcv.imresize
        image = resize(image, tuple(steps['scale']), interpolation=steps['interpolation'], backend=steps['backend'])
    if 'center_crop' in steps:
        width, height = steps['center_crop']
        top, left = round((image.shape[0] - height) / 2), round((image.shape[1] - width) / 2)
        image = image[top:top + height, left:left + width]
    if facts['bgr_to_rgb']:
        image = image[..., ::-1]
    image = (image.astype(np.float32) - np.float32(facts['mean'])) / np.float32(facts['std'])
    if 'then' in steps:
        scale = steps['then'].pop('scale')
        assert steps['then'] == dict(keep_ratio=True, interpolation='bicubic', antialias=True)
        padded = [-(-side // divisor) * divisor for side in image.shape[:2]]
        factor = min(max(scale) / max(padded), min(scale) / min(padded))
        size = [int(side * factor + .5) for side in image.shape[1::-1]]
        image = np.stack([np.asarray(Image.fromarray(channel).resize(size, Image.Resampling.BICUBIC))
                          for channel in image.transpose(2, 0, 1)], 2)
    assert facts['padding'] == 'right and bottom, after normalisation'
    height, width = (-(-side // divisor) * divisor for side in image.shape[:2])
    filled = np.full((height, width, 3), facts['pad_value'], np.float32)
    filled[:image.shape[0], :image.shape[1]] = image
    return filled.transpose(2, 0, 1)


@pytest.mark.parametrize('name', CASES)
def test_the_file_says_how_to_prepare_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    scope, config, transforms, sizes, again = CASES[name]
    if scope == 'mmpretrain':
        pytest.importorskip('mmpretrain')
    init_default_scope(scope)
    loader = dict(dataset=dict(pipeline=[LOAD, *transforms]))
    cfg = Config(dict(default_scope=scope, model=config(), custom_imports=dict(imports=['mmbignas']),
                      val_dataloader=loader, test_dataloader=loader))
    cfg.model.data_preprocessor.update(mean=[120., 110., 100.], std=[60., 50., 40.])
    cfg.model.data_preprocessor['bgr_to_rgb' if scope == 'mmdet' else 'to_rgb'] = True
    torch.save(dict(state_dict=scramble(build(cfg.model)).state_dict(), meta={}), tmp_path / 'x.pth')
    exporter = SubnetExporter(cfg, tmp_path / 'x.pth', sizes, log=lambda text: None)
    folder = tmp_path / 'min'
    exporter.export(exporter.space.min(), folder)
    monkeypatch.setattr(sys, 'argv', ['export_onnx.py', f'{folder}/config.py', f'{folder}/checkpoint.pth', '--out',
                                      f'{tmp_path}/x.pt2'])
    runpy.run_path(str(ROOT / 'tools' / 'export_onnx.py'), run_name='__main__')
    files = {'mmbignas.json': ''}
    torch.export.load(tmp_path / 'x.pt2', extra_files=files)
    facts = json.loads(files['mmbignas.json'])
    assert facts['image_size'] == sizes[0] and ('then' in facts['resize']) is again

    exported = Config.fromfile(str(folder / 'config.py'))
    data = Compose(exported.test_dataloader.dataset.pipeline)(dict(img_path=PICTURE, img_id=0))
    expected = read_back(folder).data_preprocessor(pseudo_collate([data]), False)['inputs'][0].numpy()
    ours = prepared(PICTURE, facts)
    assert ours.shape == expected.shape == (3, *facts['image_size']) and expected.std() > .1
    np.testing.assert_allclose(ours, expected, atol=1e-4)


def test_another_size_than_the_preprocessors_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
                                                        capsys: pytest.CaptureFixture) -> None:
    model = supernet_config()
    model.data_preprocessor = dict(type='mmbignas.ResizedDataPreprocessor', preprocessor=model.data_preprocessor,
                                   image_size=[64, 96])
    torch.save(dict(state_dict=scramble(build(model)).state_dict(), meta={}), tmp_path / 'super.pth')
    cfg = Config(dict(default_scope='mmdet', model=model))
    exporter = SubnetExporter(cfg, tmp_path / 'super.pth', [64, 96], log=lambda text: None)
    folder = tmp_path / 'min'
    exporter.export(exporter.space.min(), folder)
    for size, message in (('128 96', '--image-size must be 64 96, to which'), ('96 64', '')):
        monkeypatch.setattr(sys, 'argv', ['export_onnx.py', f'{folder}/config.py', f'{folder}/checkpoint.pth', '--out',
                                          f'{tmp_path}/x.pt2', '--image-size', *size.split()])
        if not message:
            runpy.run_path(str(ROOT / 'tools' / 'export_onnx.py'), run_name='__main__')
            continue
        with pytest.raises(SystemExit) as stop:
            runpy.run_path(str(ROOT / 'tools' / 'export_onnx.py'), run_name='__main__')
        assert stop.value.code == 2 and message in capsys.readouterr().err
    assert (tmp_path / 'x.pt2').exists()
