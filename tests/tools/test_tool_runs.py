"""Whole runs on a tiny data set, by this package's tools and by MMDetection's."""
import json
import signal
from importlib.util import find_spec

import pytest
import torch

import mmbignas  # noqa: F401  (torch.load then reads the checkpoints)
from tests.processes import free_port
from tests.runs import MMDET_TOOLS, assert_same_state, mim_name, passes_of, python, records_of

pytestmark = pytest.mark.slow


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


def test_stopped_and_resumed(workspace, whole):
    """SIGTERM in the second epoch, to the tool; nothing in the config."""
    folder = workspace / 'stopped'
    command = ['tools/train.py', workspace / 'config.py', '--work-dir', folder]
    output = python(*command, '--cfg-options', 'custom_hooks.0.die_at=4', 'custom_hooks.0.die_by=SIGTERM', code=143)
    assert f'SIGTERM: the training ends after iteration 5; {folder}/stopped.pth is saved' in output
    assert 'resumed epoch: 1, iter: 5' in python(*command, '--resume')
    assert passes_of(folder) == passes_of(whole)
    ours, theirs = (torch.load(own / 'epoch_2.pth') for own in (folder, whole))
    assert_same_state(ours['state_dict'], theirs['state_dict'])


def test_two_processes(workspace, whole):
    """By a real command line of torchrun."""
    folder = workspace / 'two'
    python('-m', 'torch.distributed.run', '--nproc-per-node', 2, '--master-port', free_port(), 'tools/train.py',
           workspace / 'config.py', '--launcher', 'pytorch', '--work-dir', folder, real=True)
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
    """By a real command line: with MMDetection's name in mim, or, where there is no mim, as a script."""
    folder, checkpoint = workspace / 'mmdet_test', whole / 'epoch_2.pth'
    command = [MMDET_TOOLS / 'test.py', workspace / 'config.py', checkpoint]
    if find_spec('mim'):
        command = ['-m', 'mim', 'test', mim_name('mmdet'), workspace / 'config.py', '--checkpoint', checkpoint]
    python(*command, '--work-dir', folder, real=True)
    assert records_of(folder, 'test') == tested
