"""What a resumed training says about its checkpoint, and that there is one training in a folder."""
import os
import re
import signal

import pytest
import torch

from mmbignas.errors import ConfigError
from mmbignas.train import ResumeHook, StopHook
from mmbignas.train.resume.resume_hook import LOCK
from mmbignas.utils.locks import take
from tests.distributed import run_processes
from tests.toy import build_runner

SCHEDULES = [dict(type='LinearLR', start_factor=.1, by_epoch=False, begin=0, end=4),
             dict(type='MultiStepLR', milestones=[1, 2], gamma=.5)]
EPOCHS = dict(train_cfg=dict(max_epochs=2))


def run(folder, **options):
    """The runner after a training with a checkpoint per epoch, and what it logged as warnings."""
    runner = build_runner(folder, hooks=[ResumeHook()], **{**dict(
        default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)), param_scheduler=SCHEDULES,
        train_cfg=dict(max_epochs=1)), **options})
    texts = []
    runner.logger.warning = texts.append
    runner.train()
    return runner, [text for text in texts if text.startswith('resume: ')]


@pytest.fixture(scope='module')
def trained(tmp_path_factory):
    """The checkpoint after the first of two epochs."""
    folder = tmp_path_factory.mktemp('trained')
    run(folder, **EPOCHS)
    return torch.load(folder / 'epoch_1.pth')


def resumed(folder, checkpoint, **options):
    torch.save(checkpoint, folder / 'own.pth')
    return run(folder, resume=True, load_from=str(folder / 'own.pth'), **{**EPOCHS, **options})


@pytest.mark.parametrize(('missing', 'named'), [
    ('all but weights', 'meta, message_hub'), ('meta', 'meta'), ('message_hub', 'message_hub'),
    ('meta.iter', 'meta.iter'), ('meta.epoch', 'meta.epoch'), ('message_hub.log_scalars', 'message_hub'),
    ('state_dict', 'state_dict'), ('all but a tensor', 'state_dict')])
def test_what_no_training_can_be_resumed_from(tmp_path, trained, missing, named):
    """In MMEngine these are KeyErrors."""
    checkpoint = {name: dict(value) if isinstance(value, dict) else value for name, value in trained.items()}
    if missing == 'all but weights':
        checkpoint = dict(state_dict=trained['state_dict'])
    elif missing == 'all but a tensor':
        checkpoint = torch.zeros(3)
    else:
        *path, last = missing.split('.')
        del (checkpoint[path[0]] if path else checkpoint)[last]
    with pytest.raises(ConfigError, match=rf'resume: .*own.pth must be a checkpoint of a training, it has no {named}; '
                       'without resume, load_from begins a new training'):
        resumed(tmp_path, checkpoint)


def test_a_bare_state_dict(tmp_path, trained):
    with pytest.raises(ConfigError, match='it has no state_dict, meta, message_hub;'):
        resumed(tmp_path, trained['state_dict'])


def test_what_begins_anew(tmp_path, trained):
    """A checkpoint of ``save_best`` has no optimizer."""
    checkpoint = {name: value for name, value in trained.items() if name not in ('optimizer', 'param_schedulers')}
    runner, texts = resumed(tmp_path, checkpoint)
    assert texts == [f'resume: {tmp_path}/own.pth has no optimizer and no param_schedulers, which begin anew']
    assert runner.iter == 8


def test_the_same_settings_are_no_difference(tmp_path, trained):
    runner, texts = resumed(tmp_path, trained)
    assert (runner.iter, texts) == (8, [])


def test_more_epochs(tmp_path, trained):
    """MMEngine ends a schedule with the last epoch that the first run was to have, and goes on without it."""
    runner, texts = resumed(tmp_path, trained, train_cfg=dict(max_epochs=3))
    assert texts == [f'resume: {tmp_path}/own.pth is of a run with other settings: max_epochs is 2 there and 3 here, '
                     'which holds; param_scheduler[1].end is 2 there, which holds, and 3 here']
    assert (runner.iter, runner.param_schedulers[1].end) == (12, 2)


def test_other_schedules_and_optimizers(tmp_path, trained):
    """The checkpoint's hold, which MMEngine does not say."""
    runner, [text] = resumed(
        tmp_path, trained, param_scheduler=[SCHEDULES[0], dict(SCHEDULES[1], milestones=[3, 4], gamma=.1)],
        optim_wrapper=dict(optimizer=dict(type='SGD', lr=.2, momentum=.9, weight_decay=1e-4)))
    for part in ('param_scheduler[1].milestones is [1, 2] there, which holds, and [3, 4] here; ',
                 'param_scheduler[1].gamma is 0.5 there, which holds, and 0.1 here; ',
                 'optimizer.param_groups[0].lr is 0.1 there, which holds, and 0.2 here',
                 'optimizer.param_groups[0].weight_decay is 0 there, which holds, and 0.0001 here'):
        assert part in text
    assert '\n' not in text
    [group] = runner.optim_wrapper.param_groups
    assert (group['initial_lr'], group['weight_decay']) == (.1, 0)
    assert sorted(runner.param_schedulers[1].milestones.elements()) == [1, 2]


@pytest.mark.parametrize(('schedules', 'message'), [
    (SCHEDULES[:1], 'the number of param_scheduler is 2 there, which holds, and 1 here'),
    (None, 'optimizer.param_groups[0].lr is ')])
def test_fewer_schedules(tmp_path, trained, schedules, message):
    [text] = resumed(tmp_path, trained, param_scheduler=schedules)[1]
    assert message in text


def test_a_schedule_of_another_length_of_epochs(tmp_path, trained):
    """More batches in an epoch: those that are counted in iterations end elsewhere."""
    [text] = resumed(tmp_path, trained, batches=5)[1]
    assert text.endswith('max_iters is 8 there and 10 here, which holds')


def living(folder):
    """A process that holds the lock of a training, and a function that kills it."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        lock = take(folder / LOCK)
        os.write(writing, b'1' if lock else b'0')
        signal.pause()
        os._exit(0)
    assert os.read(reading, 1) == b'1'

    def kill():
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)

    return kill


@pytest.mark.parametrize('resume', [False, True])
def test_one_training_in_a_folder(tmp_path, resume):
    """A second one is refused before anything is touched; that of a process that was killed keeps nobody out."""
    run(tmp_path)
    kill = living(tmp_path)
    try:
        before = {path.name: path.stat().st_mtime_ns for path in tmp_path.glob('*.pth')}
        message = f'work_dir: another training runs in {re.escape(str(tmp_path))}; wait until it has ended'
        with pytest.raises(ConfigError, match=message):
            run(tmp_path, resume=resume, **EPOCHS)
        assert {path.name: path.stat().st_mtime_ns for path in tmp_path.glob('*.pth')} == before
    finally:
        kill()
    assert run(tmp_path, resume=resume, **EPOCHS)[0].iter == 8
    lock = take(tmp_path / LOCK)  # given up at the end
    assert lock is not None
    lock.close()


def decide(rank):
    """What each process is told, where the first one finds this, or fails."""
    def fail():
        raise ConfigError('another training')

    found = [ResumeHook()._decided_by_first(lambda: rank)]
    try:
        ResumeHook()._decided_by_first(fail)
    except ConfigError as error:
        found.append(str(error))
    return found


def test_all_processes_do_as_the_first():
    """It alone takes the lock and looks for a checkpoint, and none waits for it in vain."""
    assert run_processes(decide) == [[0, 'another training']] * 2


def test_a_test_needs_no_lock(tmp_path):
    kill = living(tmp_path)
    try:
        build_runner(tmp_path, hooks=[ResumeHook(), StopHook()], test_cfg=dict(subnets=['max'])).test()
    finally:
        kill()


def test_where_files_cannot_be_locked(tmp_path, monkeypatch):
    def refuse(file, how):
        raise OSError(37, 'No locks available')

    monkeypatch.setattr('mmbignas.utils.locks.fcntl.lockf', refuse)
    runner = build_runner(tmp_path, hooks=[ResumeHook()])
    texts = []
    runner.logger.warning = texts.append
    runner.train()
    assert f'{tmp_path}/{LOCK}: cannot be locked (No locks available), so nothing keeps' in texts[0]
