"""Runs that are killed or stopped at any iteration, in processes of their own, and go on as if nothing had been."""
import os
import random
import signal

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EMAHook, Hook

from mmbignas.distill import DistillHook
from mmbignas.errors import ConfigError
from mmbignas.train import RegularizeLargestHook, ResumeHook, StopHook
from mmbignas.utils.sealed_files import is_as_written
from tests.processes import call, free_port
from tests.toy import ToyDataset, ToyModel, build_runner, calibration
from tests.train.test_standard_hooks import assert_same

EPOCH = dict(train_cfg=dict(max_epochs=3, val_interval=2))
ITERATION = dict(train_cfg=dict(type='mmbignas.SandwichIterTrainLoop', max_iters=12, val_interval=5))
LOOPS = dict(epoch=EPOCH, iteration=ITERATION)


class Augmented(ToyDataset):
    """Random augmentations that draw from all three generators, more from one image than from another."""

    def __getitem__(self, index):
        item = super().__getitem__(index)
        np.random.rand(index)  # noqa: NPY002 (what MMEngine's transforms draw from)
        scale = random.choice([.5, 1., 2.]) * np.random.uniform(.9, 1.1)  # noqa: NPY002
        return dict(item, inputs=item['inputs'] * scale + torch.randn(3, 6, 6) * .1)


class Watch(Hook):
    """Writes down what each pass sees, and sends a signal in the midst of an iteration."""

    def __init__(self, folder, at=None, number=None, group=False):
        self.file, self.at, self.number, self.group = f'{folder}/seen.txt', at, number, group

    def before_subnet_forward(self, runner, subnet_pass):
        if runner.rank == 0:
            with open(self.file, 'a') as file:
                file.write(f'{subnet_pass.iteration} {subnet_pass.subnet.to_dict()} '
                           f'{runner.train_loop.data["inputs"].sum().item()!r}\n')
        if (subnet_pass.iteration, subnet_pass.index) == (self.at, 1):
            if self.group:
                os.killpg(os.getpgrp(), self.number)
            else:
                os.kill(os.getpid(), self.number)


def train(folder, loop, at=None, number=None, *, group=False, resume=False, workers=0, persistent=False, accumulate=1,
          by_epoch=False, seed=3, port=None, rank=0, **checkpoint):
    """One process of a training; it leads a process group of its own, as all that :func:`call` starts."""
    torch.set_num_threads(1)
    settings = {}
    if port is not None:
        os.environ.update(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1',
                          MASTER_PORT=str(port))
        torch.distributed.init_process_group('gloo')
        settings = dict(launcher='pytorch', cfg=Config(dict(model_wrapper_cfg=dict(
            type='MMDistributedDataParallel', device_ids=None))))
    loader = dict(dataset=Augmented(28), batch_size=6, num_workers=workers, persistent_workers=persistent,
                  sampler=dict(type='DefaultSampler' if loop == 'epoch' else 'InfiniteSampler', shuffle=True),
                  collate_fn=dict(type='default_collate'))
    job = dict(head=dict(mimic_name='head', loss=dict(type='mmbignas.DenseKLLoss'), warm_up_iters=7))
    hooks = [Watch(folder, at, number, group), DistillHook(job), RegularizeLargestHook(), EMAHook(momentum=.3),
             calibration(), ResumeHook(), StopHook()]
    runner = build_runner(
        folder, ToyModel(drop=.3), hooks=hooks, train_dataloader=loader, resume=resume, seed=dict(seed=seed),
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=.01), clip_grad=dict(max_norm=1.),
                           accumulative_counts=accumulate),
        param_scheduler=[dict(type='LinearLR', start_factor=.1, by_epoch=False, begin=0, end=6),
                         dict(type='MultiStepLR', by_epoch=True, milestones=[1, 2], gamma=.5)],
        val_cfg=dict(calib_bn='both'),
        default_hooks=dict(checkpoint=dict(**{'type': 'CheckpointHook', 'interval': 1, 'by_epoch': by_epoch,
                                              **checkpoint})), **{**LOOPS[loop], **settings})
    runner.train()


def run(*args, code=0, **kwargs):
    """A training in a process, or in two, that end with this exit code."""
    ranks = kwargs.pop('ranks', None)
    inputs = [(args, kwargs)]
    if ranks is not None:
        port = free_port()
        inputs = [(args, dict(kwargs, port=port, rank=rank, **own)) for rank, own in enumerate(ranks)]
    found = call(train, inputs)
    assert [own for own, _, _ in found] == [code] * len(inputs), found


def seen(folder, since=0, until=99):
    lines = (folder / 'seen.txt').read_text().splitlines()
    return [line for line in lines if since <= int(line.split()[0]) < until]


def assert_as_uninterrupted(folder, whole, start, killed, name):
    assert seen(folder)[:4 * killed] == seen(whole, until=killed)
    resumed = seen(folder)[-len(seen(whole, start)):]
    assert resumed == seen(whole, start)
    ours, theirs = (torch.load(own / name, weights_only=False) for own in (folder, whole))
    assert is_as_written(folder / name)
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert_same(ours[key], theirs[key], key)
    assert (ours['meta']['iter'], ours['meta']['epoch']) == (theirs['meta']['iter'], theirs['meta']['epoch'])


LAST = dict(epoch='iter_15.pth', iteration='iter_12.pth')


@pytest.fixture(scope='module')
def whole(tmp_path_factory):
    """A run without interruption of each loop, without workers."""
    folders = {}
    for loop in LOOPS:
        folders[loop] = tmp_path_factory.mktemp(loop)
        run(folders[loop], loop)
    return folders


def test_what_is_compared_is_random(whole):
    images = {line.split()[-1] for line in seen(whole['epoch'])}
    assert len(images) == 15
    assert len(seen(whole['epoch'])) == 15 * 4


@pytest.mark.parametrize(('loop', 'killed', 'workers', 'persistent', 'interval'), [
    ('epoch', 7, 0, False, 1), ('epoch', 5, 2, False, 1), ('epoch', 9, 2, True, 2), ('epoch', 11, 0, False, 4),
    ('iteration', 7, 0, False, 1), ('iteration', 8, 2, True, 3)])
def test_kill_9(tmp_path, whole, loop, killed, workers, persistent, interval):
    """Within an epoch, at its end, and with checkpoints a while ago."""
    options = dict(workers=workers, persistent=persistent, interval=interval)
    run(tmp_path, loop, killed, signal.SIGKILL, code=-signal.SIGKILL, **options)
    run(tmp_path, loop, resume=True, **options)
    assert_as_uninterrupted(tmp_path, whole[loop], killed // interval * interval, killed, LAST[loop])


def test_a_seed_that_was_drawn(tmp_path):
    """It comes from the checkpoint, for the order of the data too."""
    run(tmp_path / 'a', 'epoch', 7, signal.SIGKILL, code=-signal.SIGKILL, seed=None)
    run(tmp_path / 'a', 'epoch', resume=True, seed=None)
    seed = torch.load(tmp_path / 'a' / 'iter_15.pth', weights_only=False)['meta']['seed']
    run(tmp_path / 'b', 'epoch', seed=seed)
    assert_as_uninterrupted(tmp_path / 'a', tmp_path / 'b', 7, 7, 'iter_15.pth')


@pytest.mark.parametrize(('loop', 'options'), [
    ('epoch', dict()), ('iteration', dict(workers=2, group=True)), ('epoch', dict(workers=2, group=True))])
def test_sigterm(tmp_path, whole, loop, options):
    """Also to a whole group of processes, with the workers among them."""
    run(tmp_path, loop, 6, signal.SIGTERM, code=143, interval=-1, **options)
    assert (tmp_path / 'last_checkpoint').read_text() == f'{tmp_path}/stopped.pth'
    assert seen(tmp_path) == seen(whole[loop], until=7)  # that iteration is finished
    run(tmp_path, loop, resume=True, interval=-1)
    assert_as_uninterrupted(tmp_path, whole[loop], 7, 7, LAST[loop])


def test_sigterm_at_the_end_of_an_epoch(tmp_path, whole):
    run(tmp_path, 'epoch', 9, signal.SIGTERM, code=143, interval=-1)
    run(tmp_path, 'epoch', resume=True, interval=-1)
    assert_as_uninterrupted(tmp_path, whole['epoch'], 10, 10, 'iter_15.pth')


def test_sigterm_amid_accumulated_gradients(tmp_path):
    """The group is finished first: iterations 6 to 8 are one."""
    run(tmp_path / 'a', 'epoch', 6, signal.SIGTERM, code=143, accumulate=3)
    assert len(seen(tmp_path / 'a')) == 9 * 4
    run(tmp_path / 'a', 'epoch', resume=True, accumulate=3)
    run(tmp_path / 'b', 'epoch', accumulate=3)
    assert_as_uninterrupted(tmp_path / 'a', tmp_path / 'b', 9, 9, 'iter_15.pth')


def test_sigterm_to_one_of_two_processes(tmp_path):
    """All end after the same iteration; the weights, without the statistics, which only one process saves."""
    run(tmp_path / 'a', 'epoch', code=143, ranks=[{}, dict(at=3, number=signal.SIGTERM)])
    for own in (dict(resume=True), {}):
        run(tmp_path / ('a' if own else 'b'), 'epoch', ranks=[own, own])
    assert_as_uninterrupted(tmp_path / 'a', tmp_path / 'b', 4, 4, 'iter_9.pth')


class Send(Hook):
    """A signal to itself."""

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if runner.iter == 1:
            os.kill(os.getpid(), signal.SIGUSR1)


def test_mmengines_loop_by_epoch_saves_nothing(tmp_path):
    runner = build_runner(tmp_path, hooks=[Send(), StopHook(['SIGUSR1'])], train_cfg=dict(type='EpochBasedTrainLoop'))
    before = signal.getsignal(signal.SIGUSR1)
    with pytest.raises(SystemExit) as end:
        runner.train()
    assert end.value.code == 128 + signal.SIGUSR1
    assert not list(tmp_path.glob('*.pth'))
    assert signal.getsignal(signal.SIGUSR1) == before


@pytest.mark.parametrize('signals', ['SIGTERM', [], ['SIGKILL'], ['SIGNONE'], [15]])
def test_wrong_signals(signals):
    with pytest.raises(ConfigError, match='StopHook.signals must be a list of .*SIGTERM.*, got '):
        StopHook(signals)


def resumed(folder, **checkpoint):
    """The iteration that a run goes on from."""
    runner = build_runner(
        folder, hooks=[ResumeHook()], resume=True, train_cfg=dict(max_epochs=3), log_level='WARNING',
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1, **checkpoint)))
    starts = []
    runner.register_hook(Start(starts), priority='LOWEST')
    runner.train()
    return starts[0]


class Start(Hook):
    def __init__(self, starts):
        self.starts = starts

    def before_train(self, runner):
        self.starts.append(runner.iter)


@pytest.fixture
def saved(tmp_path):
    """A finished training of two epochs of four iterations."""
    build_runner(tmp_path, hooks=[ResumeHook()], train_cfg=dict(max_epochs=2),
                 default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1))).train()
    return tmp_path


def log_of(folder):
    return ''.join(path.read_text() for path in folder.glob('*/*.log'))


def damage(path, how):
    content = bytearray(path.read_bytes())
    if how == 'cut':
        content = content[:len(content) // 2]
    elif how == 'one bit':
        content[len(content) // 2] ^= 1
    path.write_bytes(b'' if how == 'empty' else content)


@pytest.mark.parametrize('how', ['whole', 'cut', 'one bit', 'empty', 'gone'])
def test_a_damaged_checkpoint(saved, how):
    """The one before it is taken, and that is said."""
    last = saved / 'epoch_2.pth'
    if how == 'gone':
        last.unlink()
    elif how != 'whole':
        damage(last, how)
    assert resumed(saved) == (8 if how == 'whole' else 4)
    log = log_of(saved)
    assert (f'resuming from {saved}/epoch_1.pth in place of what cannot be read: {last}' in log) == (how != 'whole')
    assert ('its SHA-256 is not the one that was written' in log) == (how == 'one bit')


@pytest.mark.parametrize('note', [None, ''])
def test_a_missing_note(saved, note):
    """As when a run ends between writing the first checkpoint and the note of it. A partial file is cleared away."""
    (saved / 'last_checkpoint').unlink()
    if note is not None:
        (saved / 'last_checkpoint').write_text(note)
    (saved / '.epoch_3.pth.x7.partial').mkdir()
    (saved / '.epoch_3.pth.x7.partial' / '.mmbignas.lock').write_text('')
    (saved / 'best_min_epoch_9.pth').write_bytes(b'PK')
    assert resumed(saved) == 8
    assert not list(saved.glob('.*.partial'))


def test_nothing_to_resume_from(tmp_path, saved):
    assert resumed(tmp_path / 'new') == 0
    for path in saved.glob('*.pth'):
        damage(path, 'cut')
    with pytest.raises(ConfigError, match='resume: no checkpoint .* can be read .*epoch_2.pth is truncated.*epoch_1'):
        resumed(saved)


def test_a_checkpoint_has_its_name_when_it_is_complete(saved, monkeypatch):
    """The disk is full amid the third one; a single one to keep is warned of."""
    before = {path.name: path.read_bytes() for path in saved.glob('*.pth')}

    def full(number):
        raise OSError('No space left on device')

    with monkeypatch.context() as patch, pytest.raises(OSError, match='No space left'):
        patch.setattr(os, 'fsync', full)
        resumed(saved)
    assert {path.name: path.read_bytes() for path in saved.glob('*.pth')} == before
    assert resumed(saved, max_keep_ckpts=1) == 8
    assert 'default_hooks.checkpoint.max_keep_ckpts: with 1, the only checkpoint is deleted' in log_of(saved)


def test_a_named_checkpoint_that_is_damaged_or_of_another_model(tmp_path):
    """MMEngine would end in a traceback for the one, and train on with random weights for the other."""
    saving = dict(default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)))
    build_runner(tmp_path, hooks=[ResumeHook()], **saving).train()
    whole, broken, other = (tmp_path / name for name in ('epoch_1.pth', 'broken.pth', 'other.pth'))
    broken.write_bytes(whole.read_bytes()[:-5000])
    checkpoint = torch.load(whole)
    checkpoint['state_dict']['head.weight'] = torch.zeros(5, 16)
    torch.save(checkpoint, other)
    for path, message in ((broken, 'load_from must be a whole checkpoint with resume: .*broken.pth is truncated'),
                          (other, r'the checkpoint must be of the same architecture as the model; 1 weights do not '
                                  r'fit, the first is head.weight \(\(5, 16\) instead of \(5, 8\)\)')):
        runner = build_runner(tmp_path, hooks=[ResumeHook()], resume=True, load_from=str(path),
                              train_cfg=dict(max_epochs=2))
        with pytest.raises(ConfigError, match=message):
            runner.train()
