"""A stock detector made a family by the tools: written, trained, resumed, evaluated, searched, drawn, exported."""
from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.config import Config

from mmbignas import ConfigError
from mmbignas.elastic import Plan, cut_state
from mmbignas.ranking.trust import TrustCheck
from mmbignas.supernet import Supernet
from mmbignas.supernet.build import build_model
from tests.runs import ROOT, assert_same_state, launch, passes_of, python, records_of

pytestmark = pytest.mark.slow

STOCK = """
_base_ = {base!r}
train_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}, pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]))
val_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={data!r} + '/annotations/val.json')
test_evaluator = val_evaluator
model = dict(backbone=dict(frozen_stages=1, norm_eval=True, init_cfg=dict(type='Pretrained', checkpoint='gone.pth')),
             test_cfg=dict(score_thr=0., nms_pre=50))
optim_wrapper = dict(optimizer=dict(_delete_=True, type='SGD', lr=0.04), clip_grad=None)
default_hooks = dict(checkpoint=dict(save_best='coco/bbox_mAP'))
custom_hooks = [dict(type='EMAHook')]
"""
# What the written config leaves open.
MORE = """
_base_ = 'supernet.py'
custom_imports = dict(imports=['mmbignas', 'tests.recording'])
custom_hooks = [*_base_.custom_hooks, dict(type='mmbignas.RecordingHook'), dict(type='mmbignas.DistillHook', jobs=dict(
    cls=dict(mimic_name='bbox_head.retina_cls', loss=dict(type='mmbignas.DenseKLLoss'))))]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1), logger=dict(interval=1))
train_cfg = dict(val_interval=2)
test_cfg = {test}
"""
BY_ITERATIONS = """
train_cfg = dict(_delete_=True, type='mmbignas.SandwichIterTrainLoop', max_iters=4, val_interval=4)
train_dataloader = dict(sampler=dict(type='InfiniteSampler'))
param_scheduler = []
default_hooks = dict(checkpoint=dict(interval=2, by_epoch=False))
"""
EVALUATE = dict(type='mmbignas.EvaluateSubnetLoop', subnets=['max', 'middle', 'min'], image_size=[128, 128],
                latency=dict(batch_size=1), _delete_=True)
SAMPLE = dict(type='mmbignas.SampleAccuracyLoop', image_size=[128, 128], subnet_count=3, _delete_=True)
SEARCH = dict(type='mmbignas.SubnetSearchLoop', image_size=[128, 128], subnet_count=2, metric1='coco/bbox_mAP',
              objectives=['coco/bbox_mAP', 'macs'], _delete_=True)


def make(folder: Path, data: str) -> None:
    """A stock detector with weights, and what the tool makes of it."""
    (folder / 'stock.py').write_text(STOCK.format(base=str(ROOT / 'configs' / 'shapes_retinanet.py'), data=data))
    cfg = Config.fromfile(str(folder / 'stock.py'))
    cfg.model.backbone.init_cfg = None
    torch.manual_seed(0)
    model = build_model(cfg)
    model.init_weights()
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(
        classes=('circle', 'square', 'triangle')))), folder / 'stock.pth')
    output = python('tools/make_supernet.py', folder / 'stock.py', folder / 'stock.pth', '--out',
                    folder / 'supernet.py', '--divisor', 4, '--epochs', 2)
    (folder / 'output.txt').write_text(output)
    for name, test in dict(evaluate=EVALUATE, sample=SAMPLE, search=SEARCH).items():
        (folder / f'{name}.py').write_text(MORE.format(test=test))


@pytest.fixture(scope='module')
def family(workspace: Path, shared: Any) -> Path:
    return shared('family', lambda folder: make(folder, f'{workspace}/data'))


@pytest.fixture(scope='module')
def trained(family: Path, shared: Any) -> Path:
    return shared('family_trained', lambda folder: python(
        'tools/train.py', family / 'evaluate.py', '--work-dir', folder))


def test_what_the_tool_writes(family: Path) -> None:
    cfg = Config.fromfile(str(family / 'supernet.py'))
    model = cfg.model
    assert (model.type, model.of, model.depth) == ('mmbignas.Elastic', 'mmdet.RetinaNet', 'residual')
    assert (model.backbone.frozen_stages, model.backbone.norm_eval, model.backbone.init_cfg) == (-1, False, None)
    assert model.backbone.depth == 18  # the rest is where it was
    assert model.init_cfg == dict(type='mmbignas.SortedCheckpoint', checkpoint=str(family / 'stock.pth'), by='l1')
    assert Plan.load(model.plan).model == 'RetinaNet'
    assert cfg.train_cfg.type == 'mmbignas.SandwichTrainLoop' and cfg.train_cfg.max_epochs == 2
    assert cfg.optim_wrapper.optimizer.lr == 0.01 and cfg.optim_wrapper.clip_grad.max_norm > 0
    assert [hook.type for hook in cfg.custom_hooks] == ['EMAHook', 'mmbignas.BNCalibrationHook']
    assert cfg.default_hooks.checkpoint.save_best is None
    assert cfg.test_cfg.image_size == [128, 128]
    assert (family / 'supernet.png').stat().st_size > 10_000


def test_what_the_tool_says(family: Path) -> None:
    output = (family / 'output.txt').read_text()
    for text in ('backbone.layer2.inner', '16 24 32', 'backbone.layer4', 'largest subnet: ', 'smallest subnet: ',
                 '100.0% of the MACs', 'what stays as it is:', 'an output of the network: bbox_head.retina_cls',
                 'supernet.py, supernet.plan.json, supernet.png', 'next: python tools/train.py'):
        assert text in output, text


def test_nothing_is_overwritten(family: Path) -> None:
    output = python('tools/make_supernet.py', family / 'stock.py', '--out', family / 'supernet.py', code=2)
    assert 'supernet.py: exists' in output


def test_training_leaves_the_stock_networks_keys(family: Path, trained: Path) -> None:
    stock = torch.load(family / 'stock.pth')['state_dict']
    state = torch.load(trained / 'epoch_2.pth', weights_only=False)['state_dict']
    assert {name: value.shape for name, value in state.items()} == {name: value.shape for name, value in stock.items()}
    assert [own[1] for own in passes_of(trained)[:4]] == ['max', 'min', 'random0', 'random1']
    assert len(passes_of(trained)) == 2 * 3 * 4
    assert [line['name'] for line in records_of(trained, 'val')] == ['max_calib', 'min_calib']


def test_a_resumed_run_is_the_run_without_interruption(family: Path, trained: Path, tmp_path: Path) -> None:
    (tmp_path / 'epoch_1.pth').write_bytes((trained / 'epoch_1.pth').read_bytes())
    python('tools/train.py', family / 'evaluate.py', '--work-dir', tmp_path, '--resume', tmp_path / 'epoch_1.pth')
    ours, theirs = (torch.load(folder / 'epoch_2.pth', weights_only=False) for folder in (tmp_path, trained))
    assert_same_state(ours['state_dict'], theirs['state_dict'])


def test_by_iterations_a_resumed_run_is_the_run_without_interruption(family: Path, tmp_path: Path) -> None:
    (family / 'iterations.py').write_text(MORE.format(test=EVALUATE) + BY_ITERATIONS)
    for name, more in dict(whole=(), resumed=('--resume',)).items():
        if more:
            (tmp_path / name).mkdir()
            (tmp_path / name / 'iter_2.pth').write_bytes((tmp_path / 'whole' / 'iter_2.pth').read_bytes())
            (tmp_path / name / 'last_checkpoint').write_text(str(tmp_path / name / 'iter_2.pth'))
        python('tools/train.py', family / 'iterations.py', '--work-dir', tmp_path / name, *more)
    whole, resumed = (torch.load(tmp_path / name / 'iter_4.pth') for name in ('whole', 'resumed'))
    assert [own[0] for own in passes_of(tmp_path / 'resumed')] == [2] * 4 + [3] * 4
    assert passes_of(tmp_path / 'whole')[2 * 4:] == passes_of(tmp_path / 'resumed')
    assert_same_state(whole['state_dict'], resumed['state_dict'])
    assert whole['state_dict'].keys() == torch.load(family / 'stock.pth')['state_dict'].keys()


def test_two_processes(family: Path, trained: Path, tmp_path: Path) -> None:
    launch('tools/train.py', family / 'evaluate.py', '--launcher', 'pytorch', '--work-dir', tmp_path, '--cfg-options',
           'train_cfg.max_epochs=1')
    assert passes_of(tmp_path) == passes_of(tmp_path, 1)
    states = [torch.load(tmp_path / f'rank{rank}.pth') for rank in range(2)]
    for only in ('weight', 'bias'):
        assert_same_state(*states, only=only)


def test_evaluation(family: Path, trained: Path, tmp_path: Path) -> None:
    python('tools/test.py', family / 'evaluate.py', trained / 'epoch_2.pth', '--work-dir', tmp_path)
    subnets = json.loads(next(tmp_path.glob('*/evaluation.json')).read_text())['subnets']
    assert [subnet['name'] for subnet in subnets] == ['max', 'middle', 'min']
    assert subnets[0]['macs'] > subnets[1]['macs'] > subnets[2]['macs'] > 0
    assert all('coco/bbox_mAP' in subnet['metrics_calib'] and subnet['latency']['median'] > 0 for subnet in subnets)
    [expected] = [line['metrics'] for line in records_of(trained, 'val') if line['name'] == 'min_calib']
    assert subnets[2]['metrics_calib'] == pytest.approx(expected)


def test_samples_and_search(family: Path, trained: Path, tmp_path: Path) -> None:
    python('tools/test.py', family / 'sample.py', trained / 'epoch_2.pth', '--work-dir', tmp_path / 'sample')
    assert list((tmp_path / 'sample').rglob('subnets.html'))
    python('tools/test.py', family / 'search.py', trained / 'epoch_2.pth', '--work-dir', tmp_path / 'search')
    assert [path for path in (tmp_path / 'search').rglob('*') if path.suffix == '.html']
    # Trained alone, a subnet is the stock network cut to its shapes, with new weights.
    check = TrustCheck(Config.fromfile(str(family / 'sample.py')), tmp_path / 'sample', 3, epochs=1)
    model = build_model(Config.fromfile(str(family / 'supernet.py')))
    for number, cfg in check.configs.items():
        assert 'SortedCheckpoint' not in cfg.pretty_text and cfg.model.of == 'mmdet.RetinaNet'
        Supernet(model).apply(Supernet(model).space[number])
        assert {name: value.shape for name, value in build_model(cfg).state_dict().items()} == {
            name: value.shape for name, value in cut_state(model, model.elastic.parts).items()}
    cfg.dump(tmp_path / 'alone.py')
    python('tools/train.py', tmp_path / 'alone.py', '--work-dir', tmp_path / 'alone', '--cfg-options',
           'custom_hooks=[]')
    assert (tmp_path / 'alone' / 'epoch_1.pth').is_file()


def test_pictures_and_export(family: Path, trained: Path, workspace: Path, tmp_path: Path) -> None:
    image = next((workspace / 'data' / 'val').iterdir())
    python('tools/draw_subnets.py', family / 'evaluate.py', trained / 'epoch_2.pth', '--images', image, '--subnet',
           'max', 'min', '--out', tmp_path / 'drawn.png')
    assert (tmp_path / 'drawn.png').stat().st_size > 1000
    output = python('tools/export_subnet.py', family / 'evaluate.py', trained / 'epoch_2.pth', '--subnet', 'min',
                    '--out', tmp_path / 'min')
    assert 'equal, bit for bit' in output and 'BN statistics: calibrated with 12 images' in output
    python('tools/export_onnx.py', tmp_path / 'min' / 'config.py', tmp_path / 'min' / 'checkpoint.pth', '--out',
           tmp_path / 'min.onnx', '--boxes', '--static-batch')
    assert (tmp_path / 'min.onnx').stat().st_size > 1000


@pytest.mark.parametrize('kind', ['SupernetCheckpoint', 'OverlapCheckpoint', 'SortedCheckpoint'])
def test_initializers_refuse_its_checkpoint(family: Path, trained: Path, kind: str) -> None:
    cfg = Config.fromfile(str(family / 'supernet.py'))
    cfg.model.init_cfg = dict(type=f'mmbignas.{kind}', checkpoint=str(trained / 'epoch_2.pth'))
    model = build_model(cfg)
    with pytest.raises(ConfigError, match=f"{kind}.checkpoint must be a checkpoint of another kind than an elastic"):
        model.init_weights()


def test_a_config_of_pure_python(family: Path, tmp_path: Path) -> None:
    text = Config.fromfile(str(family / 'stock.py')).pretty_text
    assert text.count("type='RetinaNet'") == 1
    (tmp_path / 'pure.py').write_text('from mmdet.models import RetinaNet\n\n' + text.replace(
        "type='RetinaNet'", 'type=RetinaNet'))
    output = python('tools/make_supernet.py', tmp_path / 'pure.py', '--out', tmp_path / 'family.py', '--divisor', 4,
                    '--no-depth', '--ratios', 0.5, 1, '--cfg-options', 'model.backbone.init_cfg=None')
    assert 'family.py, family.plan.json, family.png, family_stock.py' in output
    cfg = Config.fromfile(str(tmp_path / 'family.py'))
    assert cfg.model.of == 'mmdet.models.detectors.retinanet.RetinaNet' and 'depth' not in cfg.model
    model = build_model(cfg)
    assert type(model).__name__ == 'RetinaNet' and not hasattr(model.elastic, 'depth')
