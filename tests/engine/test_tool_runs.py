"""Whole runs on a tiny data set, by this package's tools and by MMDetection's."""
import json
import os
import signal
import socket
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import mmdet
import pytest
import torch

import mmbignas  # noqa: F401  (torch.load then reads the checkpoints)

ROOT = Path(__file__).parents[2]
MMDET_TOOLS = Path(mmdet.__file__).parent / '.mim' / 'tools'
CONFIG = """
_base_ = {base!r}
custom_imports = dict(imports=['mmbignas', 'tests.engine.recording'])
train_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}, pipeline=[
    dict(type='LoadImageFromFile'), dict(type='LoadAnnotations', with_bbox=True), dict(type='PackDetInputs')]))
val_dataloader = dict(batch_size=4, dataset=dict(data_root={data!r}))
test_dataloader = val_dataloader
val_evaluator = dict(ann_file={data!r} + '/annotations/val.json')
test_evaluator = val_evaluator
model = dict(test_cfg=dict(score_thr=0., nms_pre=50))
train_cfg = dict(max_epochs=2, val_interval=2)
test_cfg = dict(subnets=['max', 'random'])
custom_hooks = [
    dict(type='mmbignas.RecordingHook'),
    dict(type='mmbignas.BNCalibrationHook', num_images=8),
    dict(type='mmbignas.RegularizeLargestHook'),
    dict(type='mmbignas.DistillHook', jobs=dict(
        p6=dict(mimic_name='neck.fpn_convs.3.conv', loss=dict(type='mmbignas.FeatureMSELoss')))),
]
default_hooks = dict(checkpoint=dict(interval=1, max_keep_ckpts=-1), logger=dict(interval=1))
"""


def python(*args, code=0, timeout=240):
    """Run Python with these arguments, see that it ends with ``code``, and return what it wrote."""
    environment = {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore'}
    done = subprocess.run([sys.executable, *map(str, args)], env=environment, cwd=ROOT, timeout=timeout,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == code, done.stdout[-3000:]
    return done.stdout


def passes_of(folder, rank=0):
    return [json.loads(line) for line in (folder / f'passes{rank}.jsonl').read_text().splitlines()]


def records_of(folder, stage):
    """The lines that the last run in a folder wrote."""
    file = sorted(folder.glob(f'*/subnets_{stage}.jsonl'))[-1]
    return [json.loads(line) for line in file.read_text().splitlines()]


def assert_same_state(first, second, only=''):
    assert first.keys() == second.keys()
    for name, value in first.items():
        if only in name:
            assert torch.equal(value, second[name]), name


@pytest.fixture(scope='module')
def workspace(tmp_path_factory):
    """A folder with the data and the config; the runs go below it."""
    folder = tmp_path_factory.mktemp('runs')
    python('tools/make_shapes.py', folder / 'data', '--train', 12, '--val', 4, '--size', 64)
    text = CONFIG.format(base=str(ROOT / 'configs' / 'shapes_supnet.py'), data=f'{folder}/data')
    (folder / 'config.py').write_text(text)
    return folder


@pytest.fixture(scope='module')
def whole(workspace):
    """A run without interruption."""
    python('tools/train.py', workspace / 'config.py', '--work-dir', workspace / 'whole')
    return workspace / 'whole'


@pytest.fixture(scope='module')
def tested(workspace, whole):
    """A test of its checkpoint."""
    python('tools/test.py', workspace / 'config.py', whole / 'epoch_2.pth', '--work-dir', workspace / 'tested')
    return records_of(workspace / 'tested', 'test')


def test_training(whole):
    passes = passes_of(whole)
    assert [(iteration, name) for iteration, name, _ in passes] == [
        (iteration, name) for iteration in range(6) for name in ('max', 'min', 'random0', 'random1')]
    assert len({str(settings) for _, name, settings in passes if 'random' in name}) > 6
    assert {path.name for path in whole.glob('*.pth')} == {'epoch_1.pth', 'epoch_2.pth', 'rank0.pth'}
    assert [(line['name'], line['iter']) for line in records_of(whole, 'val')] == [('max_calib', 6), ('min_calib', 6)]
    scalars = [json.loads(line) for line in next(whole.glob('*/vis_data/scalars.json')).read_text().splitlines()]
    assert [line['step'] for line in scalars if 'loss' in line] == list(range(1, 7))
    assert {'loss', 'max.loss_cls', 'min.loss_bbox', 'random0.loss_distill_p6'} <= set(scalars[0])
    assert 'max.loss_distill_p6' not in scalars[0]


def test_killed_and_resumed(workspace, whole):
    """``kill -9`` in the second epoch: the run goes on from the first one's end, and ends as if nothing had been."""
    folder = workspace / 'killed'
    command = ['tools/train.py', workspace / 'config.py', '--work-dir', folder]
    python(*command, '--cfg-options', 'custom_hooks.0.die_at=4', code=-signal.SIGKILL)
    begun = passes_of(folder)
    assert begun == passes_of(whole)[:4 * 4 + 2]
    assert not (folder / 'epoch_2.pth').exists()
    output = python(*command, '--resume')
    assert 'resumed epoch: 1, iter: 3' in output
    assert passes_of(folder)[len(begun):] == passes_of(whole)[3 * 4:]
    ours, theirs = (torch.load(own / 'epoch_2.pth') for own in (folder, whole))
    assert_same_state(ours['state_dict'], theirs['state_dict'])
    assert ours['optimizer']['param_groups'] == theirs['optimizer']['param_groups']
    for number, state in ours['optimizer']['state'].items():
        assert_same_state(state, theirs['optimizer']['state'][number])
    assert [line['metrics'] for line in records_of(folder, 'val')] == [
        line['metrics'] for line in records_of(whole, 'val')]


def test_two_processes(workspace, whole):
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    folder = workspace / 'two'
    python('-m', 'torch.distributed.run', '--nproc-per-node', 2, '--master-port', port, 'tools/train.py',
           workspace / 'config.py', '--launcher', 'pytorch', '--work-dir', folder)
    passes = passes_of(folder)
    assert passes == passes_of(folder, 1) == passes_of(whole)[:4 * 4]  # six images a process are two batches
    states = [torch.load(folder / f'rank{rank}.pth') for rank in range(2)]
    for only in ('weight', 'bias'):
        assert_same_state(*states, only=only)
    assert_same_state(states[0], torch.load(folder / 'epoch_2.pth')['state_dict'])
    assert not torch.equal(states[0]['bbox_head.retina_cls.weight'],
                           torch.load(whole / 'epoch_2.pth')['state_dict']['bbox_head.retina_cls.weight'])
    assert [line['name'] for line in records_of(folder, 'val')] == ['max_calib', 'min_calib']


def test_testing(whole, tested):
    assert [(line['name'], line['calib_bn']) for line in tested] == [
        ('max', False), ('max_calib', True), ('random0', False), ('random0_calib', True)]
    assert tested[1]['metrics'] == records_of(whole, 'val')[0]['metrics']
    assert tested[0]['subnet_settings'] == tested[1]['subnet_settings'] != tested[2]['subnet_settings']
    assert all('coco/bbox_mAP' in line['metrics'] for line in tested)


def test_mmdetections_own_train_tool(workspace, whole):
    """The config's ``custom_imports`` is all it needs."""
    folder = workspace / 'mmdet_train'
    python(MMDET_TOOLS / 'train.py', workspace / 'config.py', '--work-dir', folder, '--cfg-options',
           'train_cfg.max_epochs=1', 'train_cfg.val_begin=9')
    assert passes_of(folder) == passes_of(whole)[:3 * 4]
    ours, theirs = (torch.load(own / 'epoch_1.pth')['state_dict'] for own in (folder, whole))
    assert_same_state(ours, theirs)


def test_mmdetections_own_test_tool(workspace, whole, tested):
    """By MMDetection's name in mim, or, where there is no mim, as a script."""
    folder, checkpoint = workspace / 'mmdet_test', whole / 'epoch_2.pth'
    command = [MMDET_TOOLS / 'test.py', workspace / 'config.py', checkpoint]
    if find_spec('mim'):
        command = ['-m', 'mim', 'test', 'mmdet', workspace / 'config.py', '--checkpoint', checkpoint]
    python(*command, '--work-dir', folder)
    assert records_of(folder, 'test') == tested
