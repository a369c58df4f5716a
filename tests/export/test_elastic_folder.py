"""Exported subnets of elastic networks: the stock network cut to their shapes, in a process without mmbignas."""
from __future__ import annotations

import copy
import json
import random
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config, ConfigDict

from mmbignas import ConfigError
from mmbignas.export.network import Network
from mmbignas.export.subnet_folder import BUILDER, SubnetExporter, read_back
from tests.elastic.networks import build, densenet, elastic, faster_rcnn, mobilenet, retinanet
from tests.runs import MMDET_TOOLS, ROOT, python

CONFIGS = dict(retinanet=retinanet, faster_rcnn=faster_rcnn, densenet=densenet, mobilenet=mobilenet)
SIZE = (64, 96)
# Runs what follows where nothing can be imported of mmbignas.
WITHOUT = """
import runpy, sys
sys.modules['mmbignas'] = None
sys.argv = sys.argv[1:]
runpy.run_path(sys.argv[0], run_name='__main__')
"""
DETECT = """
import sys, torch
from mmdet.apis import DetInferencer, inference_detector, init_detector
image, folder, out = sys.argv[1:]
model = init_detector(f'{folder}/config.py', f'{folder}/checkpoint.pth', device='cpu')
found = inference_detector(model, image).pred_instances
boxes = [found.bboxes]
for config in (f'{folder}/config.py', None):
    inferencer = DetInferencer(config, f'{folder}/checkpoint.pth', device='cpu', show_progress=False)
    [own] = inferencer(image)['predictions']
    boxes.append(torch.tensor(own['bboxes']))
torch.save(boxes, out)
assert sys.modules['mmbignas'] is None and not any(name.startswith('mmbignas.') for name in sys.modules)
"""


def elastic_config(name: str) -> Config:
    hooks = [dict(type='mmbignas.BNCalibrationHook', num_images=4), dict(type='mmbignas.StopHook'),
             dict(type='EMAHook')]
    init = dict(type='mmbignas.SortedCheckpoint', checkpoint='none.pth')
    return Config(dict(default_scope='mmdet', model=elastic(CONFIGS[name](), example=64, init_cfg=init),
                       custom_imports=dict(imports=['mmbignas']), custom_hooks=hooks,
                       train_cfg=dict(type='mmbignas.SandwichTrainLoop', max_epochs=2, sample_strategy=['max']),
                       val_cfg=dict(type='mmbignas.SubnetValLoop', subnets=['max'])))


@pytest.mark.parametrize('name', CONFIGS)
def test_the_folder_is_the_subnet_and_needs_no_mmbignas(tmp_path: Path, name: str) -> None:
    cfg = elastic_config(name)
    model = build(copy.deepcopy(cfg.model)).eval()
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=3)), tmp_path / 'supernet.pth')
    exporter = SubnetExporter(cfg, tmp_path / 'supernet.pth', SIZE, log=lambda text: None)
    rng = random.Random(0)
    for number, subnet in enumerate([exporter.space.min(), *(exporter.space.sample(rng) for _ in range(2))]):
        folder = tmp_path / f'subnet{number}'
        certificate = exporter.export(subnet, folder)
        assert certificate['bit_for_bit'] is True and certificate['needs_mmbignas'] is False
        written = Config.fromfile(str(folder / 'config.py'))
        assert written.model.type == 'mmengine.Cut' and 'init_cfg' not in written.model
        assert written.custom_imports.imports == ['subnet_builder']
        assert written.train_cfg.type == 'EpochBasedTrainLoop' and written.val_cfg.type == 'ValLoop'
        assert [hook.type for hook in written.custom_hooks] == ['EMAHook']
        assert 'import mmbignas' not in (folder / BUILDER).read_text()
        plain = read_back(folder)
        assert sum(parameter.numel() for parameter in plain.parameters()) == certificate['params']
        assert not hasattr(plain, 'elastic')


def test_of_a_two_stage_detector_neither_onnx_nor_pt2_is_written() -> None:
    with pytest.raises(ConfigError, match=r'no two-stage detector, .* \(MMDeploy takes .*FasterRCNN'):
        Network(build(ConfigDict(faster_rcnn())), SIZE)


def test_the_largest_subnet_is_the_stock_network_with_its_own_config(tmp_path: Path) -> None:
    cfg = elastic_config('retinanet')
    model = build(copy.deepcopy(cfg.model)).eval()
    torch.save(dict(state_dict=model.state_dict(), meta={}), tmp_path / 'supernet.pth')
    exporter = SubnetExporter(cfg, tmp_path / 'supernet.pth', SIZE, log=lambda text: None)
    exporter.export(exporter.space.max(), tmp_path / 'max')
    assert sorted(path.name for path in (tmp_path / 'max').iterdir()) == [
        'certificate.json', 'checkpoint.pth', 'config.py']
    written = Config.fromfile(str(tmp_path / 'max' / 'config.py'))
    assert written.model.type == 'mmdet.RetinaNet' and 'shapes' not in written.model and 'of' not in written.model
    state = torch.load(tmp_path / 'max' / 'checkpoint.pth')['state_dict']
    assert all(torch.equal(value, state[name]) for name, value in model.state_dict().items())


CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmbignas'])
train_dataloader = dict(dataset=dict(data_root={data!r}))
val_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={data!r} + '/annotations/val.json')
test_evaluator = val_evaluator
model = dict(type='mmbignas.Elastic', of='mmdet.RetinaNet', depth='residual',
             width=dict(ratios=[0.5, 0.75, 1.0], divisor=4), test_cfg=dict(score_thr=0., max_per_img=5))
train_cfg = dict(_delete_=True, type='mmbignas.SandwichTrainLoop', max_epochs=1, sample_subnet_num=2,
                 sample_strategy=['max', 'min'])
val_cfg = dict(_delete_=True, type='mmbignas.SubnetValLoop', subnets=['min'])
test_cfg = dict(_delete_=True, type='mmbignas.EvaluateSubnetLoop', subnets=['min'], image_size=[128, 128])
custom_hooks = [dict(type='mmbignas.BNCalibrationHook', num_images=4)]
"""


@pytest.fixture(scope='module')
def exported(tmp_path_factory: pytest.TempPathFactory, workspace: Path) -> tuple[Path, Path, dict[str, Any]]:
    """A folder that the tool wrote, an image, and what it says of the subnet."""
    top = tmp_path_factory.mktemp('family')
    config = top / 'supernet.py'
    data = f'{workspace}/data'
    config.write_text(CONFIG.format(base=str(ROOT / 'configs' / 'shapes_retinanet.py'), data=data))
    torch.manual_seed(0)
    model = build(Config.fromfile(str(config)).model)
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(
        classes=('circle', 'square', 'triangle')))), top / 'supernet.pth')
    folder = top / 'exported' / 'min'
    output = python('tools/export_subnet.py', config, top / 'supernet.pth', '--subnet', 'min', '--image-size', 128, 128,
                    '--out', folder)
    assert 'supernet and exported network: equal, bit for bit' in output
    assert 'the folder needs no mmbignas' in output
    image = next((workspace / 'data' / 'val').iterdir())
    return folder, image, json.loads((folder / 'certificate.json').read_text())


def without_mmbignas(folder: Path, *args: Any) -> str:
    script = folder / 'without.py'
    script.write_text(WITHOUT)
    env = {'PYTHONPATH': '', 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore', 'PATH': '/usr/bin:/bin'}
    return python(script, *args, cwd=folder, env=env, imported=False)


@pytest.mark.slow
def test_mmdetection_detects_with_it_where_there_is_no_mmbignas(tmp_path: Path, exported: Any) -> None:
    folder, image, _ = exported
    (tmp_path / 'detect.py').write_text(DETECT)
    without_mmbignas(tmp_path, tmp_path / 'detect.py', image, folder, tmp_path / 'boxes.pt')
    first, *others = torch.load(tmp_path / 'boxes.pt')
    assert len(first) == 5 and all(torch.allclose(own, first, atol=1e-4) for own in others)


@pytest.mark.slow
def test_mmdetections_tools_take_it_where_there_is_no_mmbignas(tmp_path: Path, exported: Any) -> None:
    folder, _, certificate = exported
    output = without_mmbignas(tmp_path, MMDET_TOOLS / 'analysis_tools' / 'get_flops.py', folder / 'config.py',
                              '--num-images', 1)
    flops, params = (float(re.search(rf'{name}: ([0-9.]+)M', output)[1]) for name in ('Flops', 'Params'))
    assert flops == pytest.approx(certificate['ops'] / 1e6, abs=6e-4)
    assert params == pytest.approx(certificate['params'] / 1e6, abs=6e-4)
    output = without_mmbignas(tmp_path, MMDET_TOOLS / 'test.py', folder / 'config.py', folder / 'checkpoint.pth')
    assert 'coco/bbox_mAP' in output


@pytest.mark.slow
def test_it_is_trained_on_and_is_the_base_of_other_configs(tmp_path: Path, exported: Any) -> None:
    folder, _, _ = exported
    (tmp_path / 'more.py').write_text(
        f"_base_ = {str(folder / 'config.py')!r}\nload_from = {str(folder / 'checkpoint.pth')!r}\n"
        'train_cfg = dict(max_epochs=1, val_interval=9)\nval_cfg = None\nval_dataloader = None\nval_evaluator = None\n')
    without_mmbignas(tmp_path, MMDET_TOOLS / 'train.py', tmp_path / 'more.py')
    trained = torch.load(tmp_path / 'work_dirs' / 'more' / 'epoch_1.pth', weights_only=False)['state_dict']
    before = torch.load(folder / 'checkpoint.pth')['state_dict']
    assert all(value.shape == before[name].shape for name, value in trained.items())
    assert not torch.equal(trained['backbone.conv1.weight'], before['backbone.conv1.weight'])
