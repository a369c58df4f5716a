"""A classifier supernet from training to deployment, by this package's tools and by MMPretrain's."""
import json
import pickle
import re
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.registry import DefaultScope

from tests.runs import ROOT, mim_name, python, records_of

mmpretrain = pytest.importorskip('mmpretrain')
pytestmark = pytest.mark.slow

PRETRAIN_TOOLS = Path(mmpretrain.__file__).parent / '.mim' / 'tools'
ANALYSIS, VISUALIZATION = PRETRAIN_TOOLS / 'analysis_tools', PRETRAIN_TOOLS / 'visualization'
CLASSES = 'abc'
CONFIG = """
_base_ = {base!r}
model = dict(data_preprocessor=dict(num_classes=3), head=dict(num_classes=3))
train_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r}))
val_dataloader = dict(batch_size=4, num_workers=0, persistent_workers=False, dataset=dict(data_root={data!r}))
test_dataloader = val_dataloader
train_cfg = dict(max_epochs=1, val_interval=1)
test_cfg = dict(subnets=['min'], calib_bn=True)
custom_hooks = [
    dict(type='mmbignas.BNCalibrationHook', num_images=8),
    dict(type='mmbignas.DistillHook', jobs=dict(
        soft=dict(mimic_name='head.fc', loss=dict(type='mmbignas.SoftLabelLoss'), replaces='loss'))),
]
default_hooks = dict(checkpoint=dict(interval=1), logger=dict(interval=1))
"""
FINETUNE = """
_base_ = {base!r}
load_from = {checkpoint!r}
custom_hooks = [
    dict(type='mmbignas.CalibrateFirstHook', num_images=8),
    dict(type='mmbignas.ValidateFirstHook'),
    dict(type='mmbignas.DistillHook',
         jobs=dict(soft=dict(mimic_name='head.fc', loss=dict(type='mmbignas.SoftLabelLoss'), replaces='loss')),
         teacher=dict(config={supernet!r}, checkpoint={supernet_checkpoint!r}, num_images=8)),
]
"""
SCORING = """
_base_ = {base!r}
test_cfg = dict(_delete_=True, type={loop!r}, image_size=[[48, 48], [64, 64]], subnet_count=3,
                metric1='accuracy/top1', predicted_count=0)
"""
EVALUATION = """
_base_ = {base!r}
test_cfg = dict(_delete_=True, type='mmbignas.EvaluateSubnetLoop', image_size=[[48, 48], [64, 64]],
                subnets=['max', 'min'], metric1='accuracy/top1', latency=dict(threads=1))
"""
# What a user types who has an exported folder: nothing of this package, no scope.
INFERENCER = """
import json, pickle, sys
from mmpretrain import ImageClassificationInferencer
config, checkpoint, predictions, out = sys.argv[1:]
inferencer = ImageClassificationInferencer(config, checkpoint, device='cpu')
found = {}
for own in pickle.load(open(predictions, 'rb')):
    [result] = inferencer(own['img_path'])
    found[own['img_path']] = dict(scores=result['pred_scores'].tolist(), **{'class': result['pred_class']})
json.dump(found, open(out, 'w'))
"""


def scripts(*commands):
    """Run scripts one after the other; return what each wrote."""
    return [python(*command) for command in commands]


def scores(file):
    """Path of an image -> its predicted scores, from a file of predictions."""
    with open(file, 'rb') as opened:
        return {own['img_path']: own['pred_score'] for own in pickle.load(opened)}


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """Pictures of noise, a config, and a supernet that MMPretrain's tool trained for an epoch."""
    folder, rng = tmp_path_factory.mktemp('classifier'), np.random.default_rng(0)
    for stage, count in dict(train=4, test=2).items():
        for index, name in enumerate(CLASSES):
            (folder / 'data' / stage / name).mkdir(parents=True)
            for number in range(count):
                picture = rng.integers(80 * index, 80 * index + 90, (64, 64, 3), dtype=np.uint8)
                cv2.imwrite(str(folder / 'data' / stage / name / f'{name}{number}.png'), picture)
    base = str(ROOT / 'configs' / 'regnet_trashnet_supnet.py')
    (folder / 'config.py').write_text(CONFIG.format(base=base, data=f'{folder}/data'))
    python(PRETRAIN_TOOLS / 'train.py', folder / 'config.py', '--work-dir', folder / 'trained')
    return folder


@pytest.fixture(scope='module')
def exported(workspace):
    """The smallest subnet, at an image size that the pipeline does not give, and a test of it in the supernet."""
    config, checkpoint, settings = workspace / 'config.py', workspace / 'trained' / 'epoch_1.pth', workspace / 's.json'
    _, exported = scripts(
        ['tools/test.py', config, checkpoint, '--work-dir', workspace / 'tested', '--out', workspace / 'supernet.pkl',
         '--show-dir', 'pictures'],
        ['tools/export_subnet.py', config, checkpoint, '--subnet', 'min', '--out', workspace / 'min'])
    assert 'at 48x48' in exported and 'BN statistics: calibrated with 8 images' in exported
    certificate = json.loads((workspace / 'min' / 'certificate.json').read_text())
    settings.write_text(json.dumps(dict(certificate['subnet_settings'], image_size=[64, 64])))
    by_number, by_file, latency, costs = scripts(
        ['tools/export_subnet.py', config, checkpoint, '--subnet', 0, '--calib-images', 0, '--out', workspace / 'n'],
        ['tools/export_subnet.py', config, checkpoint, '--subnet', settings, '--calib-images', 0, '--out',
         workspace / 'f'],
        ['tools/latency.py', 'measure', config, '--image-size', 48, 48, 64, 64, '--threads', 1],
        ['tools/sample_flops.py', config, '--image-size', 48, 48, 64, 64, '--subnet-count', 9, '--out',
         workspace / 'costs'])
    assert 'subnet0' in by_number and 'at 48x48' in by_number and 'at 64x64' in by_file
    assert '64x64' in latency and '48x48' in latency and '9 subnets' in costs
    return workspace / 'min'


def test_predictions_and_pictures(workspace, exported):
    found = scores(workspace / 'supernet.pkl')
    assert len(found) == 6 and all(own.shape == (3,) for own in found.values())
    assert {path.name for path in (workspace / 'tested' / 'pictures' / 'min_calib').iterdir()} == {
        f'{name}{number}.png_0.png' for name in CLASSES for number in range(2)}


def test_mmpretrains_tools_take_the_exported_folder(workspace, exported):
    """Its test tool finds the very scores that the calibrated subnet has in the supernet at its own image size."""
    config, checkpoint, file = exported / 'config.py', exported / 'checkpoint.pth', workspace / 'exported.pkl'
    inferencer = workspace / 'inferencer.py'
    inferencer.write_text(INFERENCER)
    _, tested, metric, _, _, flops, printed, _, _ = scripts(
        [inferencer, config, checkpoint, workspace / 'supernet.pkl', workspace / 'inferred.json'],
        [PRETRAIN_TOOLS / 'test.py', config, checkpoint, '--work-dir', workspace / 'run', '--out', file],
        [ANALYSIS / 'eval_metric.py', file, '--metric', 'type=Accuracy', 'topk=1'],
        [ANALYSIS / 'confusion_matrix.py', config, file],
        [ANALYSIS / 'analyze_results.py', config, file, '--out-dir', workspace / 'analysed', '--topk', 1],
        [ANALYSIS / 'get_flops.py', config, '--shape', 48, 48],
        [PRETRAIN_TOOLS / 'misc' / 'print_config.py', config],
        [VISUALIZATION / 'vis_scheduler.py', config, '--dataset-size', 12, '--not-show', '--save-path',
         workspace / 'schedule.png'],
        [PRETRAIN_TOOLS / 'model_converters' / 'publish_model.py', checkpoint, workspace / 'public.pth'])
    ours, theirs = scores(workspace / 'supernet.pkl'), scores(file)
    assert ours.keys() == theirs.keys() and all(torch.equal(ours[path], theirs[path]) for path in ours)
    for path, found in json.loads((workspace / 'inferred.json').read_text()).items():
        assert found['class'] in CLASSES and found['scores'] == pytest.approx(ours[path].tolist(), abs=1e-5)
    [line] = records_of(workspace / 'tested', 'test')
    scalars = json.loads(next((workspace / 'run').glob('*/*.json')).read_text())
    assert scalars['accuracy/top1'] == line['metrics']['accuracy/top1']
    assert f"{scalars['accuracy/top1']:.4f}" in tested and str(scalars['accuracy/top1']) in metric
    # The tool counts up to the neck, and the parameters of all.
    certificate = json.loads((exported / 'certificate.json').read_text())
    counted = sum(certificate['modules'][name]['ops'] for name in ('backbone', 'neck') if name in
                  certificate['modules'])
    assert float(re.search('Flops: ([0-9.]+)M', flops)[1]) == pytest.approx(counted / 1e6, abs=6e-4)
    assert float(re.search('Params: ([0-9.]+)K', flops)[1]) == pytest.approx(certificate['params'] / 1e3, abs=6e-4)
    assert 'mmbignas.BigRegNet' in printed and 'mmbignas.ResizedDataPreprocessor' in printed
    assert (workspace / 'schedule.png').stat().st_size > 0
    assert list((workspace / 'analysed').iterdir()) and list(workspace.glob('public*.pth'))


@pytest.mark.skipif(not find_spec('mim'), reason='needs mim')
def test_mim_tests_the_supernet(workspace, exported):
    """By a real command line."""
    python('-m', 'mim', 'test', mim_name('mmpretrain'), workspace / 'config.py', '--checkpoint',
           workspace / 'trained' / 'epoch_1.pth', '--work-dir', workspace / 'mim', real=True)
    assert records_of(workspace / 'mim', 'test') == records_of(workspace / 'tested', 'test')


def test_files_to_deploy(workspace, exported):
    pytest.importorskip('onnxruntime')
    config, checkpoint = exported / 'config.py', exported / 'checkpoint.pth'
    onnx, pt2 = scripts(*(['tools/export_onnx.py', config, checkpoint, '--out', workspace / name]
                          for name in ('x.onnx', 'x.pt2')))
    assert 'outputs: logits' in onnx and 'outputs: logits' in pt2
    import onnx
    facts = {item.key: item.value for item in onnx.load(workspace / 'x.onnx').metadata_props}
    assert json.loads(facts['image_size']) == [48, 48]
    assert json.loads(facts['resize']) == dict(then=dict(scale=[48, 48], keep_ratio=True, interpolation='bicubic',
                                                         antialias=True))
    assert json.loads(facts['classes']) == list(CLASSES) and facts['channels'] == '"RGB"'


def test_what_is_for_detectors(workspace, exported, monkeypatch, capsys):
    picture = next((workspace / 'data' / 'test').rglob('*.png'))
    monkeypatch.chdir(ROOT)
    for line, message in (
            (['tools/export_onnx.py', exported / 'config.py', exported / 'checkpoint.pth', '--out',
              workspace / 'boxes.onnx', '--image-size', 48, 48, '--boxes'],
             'error: model must be a single-stage detector'),
            (['tools/draw_subnets.py', workspace / 'config.py', workspace / 'trained' / 'epoch_1.pth', '--images',
              picture, '--out', workspace / 'drawn.png'],
             'error: model must be a detector')):
        monkeypatch.setattr(sys, 'argv', list(map(str, line)))
        with DefaultScope.overwrite_default_scope('mmpretrain'), pytest.raises(SystemExit) as stop:
            runpy.run_path(line[0], run_name='__main__')
        assert stop.value.code == 2 and message in capsys.readouterr().err


def test_finetuning_with_a_supernet_as_the_teacher(workspace, exported):
    config = workspace / 'finetune.py'
    config.write_text(FINETUNE.format(
        base=str(exported / 'config.py'), checkpoint=str(exported / 'checkpoint.pth'),
        supernet=str(workspace / 'config.py'), supernet_checkpoint=str(workspace / 'trained' / 'epoch_1.pth')))
    output = python('tools/train.py', config, '--work-dir', workspace / 'finetuned')
    assert 'Validation before -> after training' in output and 'loss_distill_soft' in output
    before, after = (torch.load(path)['state_dict'] for path in (
        exported / 'checkpoint.pth', workspace / 'finetuned' / 'epoch_1.pth'))
    assert before.keys() == after.keys()


def test_many_subnets_and_trust(workspace, exported):
    """Sampled, searched, evaluated with their costs, and trained alone, each at its own image size."""
    checkpoint, lines = workspace / 'trained' / 'epoch_1.pth', []
    texts = dict(sampled=SCORING.format(base=str(workspace / 'config.py'), loop='mmbignas.SampleAccuracyLoop'),
                 searched=SCORING.format(base=str(workspace / 'config.py'), loop='mmbignas.SubnetSearchLoop'),
                 evaluated=EVALUATION.format(base=str(workspace / 'config.py')))
    for name, text in texts.items():
        if name != 'searched' or find_spec('optuna'):
            (workspace / f'{name}.py').write_text(text)
            lines.append(['tools/test.py', workspace / f'{name}.py', checkpoint, '--work-dir', workspace / name])
    outputs = scripts(*lines)
    assert all('3 subnets of' in output for output in outputs[:-1])
    assert '48x48' in outputs[-1] and 'accuracy/top1, calibrated' in outputs[-1]
    page = workspace / 'sampled' / 'sample_accuracy' / 'subnets.html'
    assert not page.exists() or '--image-size' not in page.read_text()

    ledger = workspace / 'sampled' / 'sample_accuracy' / 'ledger.jsonl'
    sizes = [json.loads(line)['image_size'] for line in ledger.read_text().splitlines()[1:]]
    python('tools/trust.py', workspace / 'sampled.py', workspace / 'sampled', '--count', 3, '--epochs', 1, '--out',
           workspace / 'trust')
    finished = [json.loads(line) for line in (workspace / 'trust' / 'trust.jsonl').read_text().splitlines()[1:]]
    assert sorted(line['image_size'] for line in finished) == sorted(sizes)
    for line in finished:
        cfg = Config.fromfile(str(workspace / 'trust' / f'subnet{line["number"]}' / 'config.py'))
        assert cfg.model.data_preprocessor.image_size == line['image_size']
