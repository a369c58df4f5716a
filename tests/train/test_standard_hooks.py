"""MMEngine's own hooks around sandwich training: checkpoints and resuming, EMA, logging, early stopping."""
import contextlib
import copy
import json
from pathlib import Path

import pytest
import torch
from mmengine.hooks import EarlyStoppingHook, EMAHook, Hook
from mmengine.runner import load_checkpoint

from mmbignas.distill import DistillHook
from mmbignas.supernet import Supernet
from mmbignas.train import RegularizeLargestHook
from tests.toy import (
    PassRecorder,
    TellingMetric,
    ToyModel,
    build_runner,
    calibration,
    expected_metrics,
    train_batches,
)


def assert_same(first, second, path=''):
    """Equal nested dicts, lists and tensors."""
    if isinstance(first, dict):
        assert first.keys() == second.keys(), path
        for key, value in first.items():
            assert_same(value, second[key], f'{path}.{key}')
    elif isinstance(first, (list, tuple)):
        assert len(first) == len(second), path
        for index, pair in enumerate(zip(first, second)):
            assert_same(*pair, f'{path}[{index}]')
    elif isinstance(first, torch.Tensor):
        assert torch.equal(first, second), path
    else:
        assert first == second, path


def checkpoint_cfg(**kwargs):
    return dict(checkpoint=dict(type='CheckpointHook', **kwargs))


class Kill(Exception):
    """An end in mid-run."""


class KillHook(Hook):
    def __init__(self, iteration):
        self.iteration = iteration

    def before_subnet_forward(self, runner, subnet_pass):
        if (subnet_pass.iteration, subnet_pass.index) == (self.iteration, 1):
            raise Kill


FULL = dict(
    optim_wrapper=dict(optimizer=dict(type='AdamW', lr=.01, weight_decay=.1), clip_grad=dict(max_norm=1.)),
    param_scheduler=[dict(type='LinearLR', start_factor=.1, by_epoch=False, begin=0, end=6),
                     dict(type='MultiStepLR', by_epoch=True, milestones=[2], gamma=.5)],
    val_cfg=dict(calib_bn='both'))
SEEDS = [dict(seed=5), dict(seed=None)]


def full_run(folder, *, hooks=(), resume=False, seed=0, train_cfg=None, **checkpoint):
    """A run with everything that a checkpoint has to bring back."""
    passes = PassRecorder()
    job = dict(head=dict(mimic_name='head', loss=dict(type='mmbignas.DenseKLLoss'), warm_up_iters=7))
    runner = build_runner(
        folder, hooks=[passes, calibration(), DistillHook(job), RegularizeLargestHook(), EMAHook(momentum=.3), *hooks],
        train_cfg=train_cfg or dict(max_epochs=3), resume=resume, seed=seed,
        default_hooks=checkpoint_cfg(**{'interval': 1, **checkpoint}), **copy.deepcopy(FULL))
    with contextlib.suppress(Kill):
        runner.train()
    return runner, passes.passes


@pytest.mark.parametrize('killed', [4, 6, 9])
@pytest.mark.parametrize('seed', SEEDS)
def test_resume_by_epoch(tmp_path, killed, seed):
    """Also where the seed was drawn at the first start: it comes from the checkpoint."""
    _, first = full_run(tmp_path / 'a', hooks=[KillHook(killed)], seed=seed)
    resumed, second = full_run(tmp_path / 'a', resume=True, seed=seed)
    whole, passes = full_run(tmp_path / 'b', seed=dict(seed=resumed.seed))
    start = killed // 4 * 4
    assert [own for own in first if own.iteration < start] == passes[:start * 4]
    assert second == passes[start * 4:]
    assert (resumed.iter, resumed.epoch) == (12, 3)
    ours, theirs = (torch.load(folder / 'epoch_3.pth') for folder in (tmp_path / 'a', tmp_path / 'b'))
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert_same(ours[key], theirs[key], key)


@pytest.mark.parametrize('killed', [4, 7])
def test_resume_by_iteration(tmp_path, killed):
    loop = dict(train_cfg=dict(type='mmbignas.SandwichIterTrainLoop', max_iters=9, val_interval=3), by_epoch=False)
    _, first = full_run(tmp_path / 'a', hooks=[KillHook(killed)], **loop)
    resumed, second = full_run(tmp_path / 'a', resume=True, **loop)
    _, passes = full_run(tmp_path / 'b', **loop)
    assert first[:killed * 4] == passes[:killed * 4]
    assert second == passes[killed * 4:]
    ours, theirs = (torch.load(folder / 'iter_9.pth') for folder in (tmp_path / 'a', tmp_path / 'b'))
    for key in ('state_dict', 'ema_state_dict', 'optimizer', 'param_schedulers'):
        assert_same(ours[key], theirs[key], key)


def test_resume_amid_accumulated_gradients(tmp_path):
    """MMEngine warns that the gradient of one iteration is lost; the hooks must cope."""
    settings = dict(train_cfg=dict(type='mmbignas.SandwichIterTrainLoop', max_iters=6),
                    optim_wrapper=dict(accumulative_counts=2),
                    default_hooks=checkpoint_cfg(interval=1, by_epoch=False))
    with pytest.raises(Kill):
        build_runner(tmp_path, hooks=[RegularizeLargestHook(), KillHook(3)], **settings).train()
    runner = build_runner(tmp_path, hooks=[RegularizeLargestHook(), PassRecorder()], resume=True, **settings)
    runner.train()
    assert runner.iter == 6


@pytest.mark.parametrize(('accuracies', 'best'), [([.1, .4, .3], 2), ([.5, .4, .3], 1), ([.1, .2, .3], 3)])
def test_save_best_of_a_subnet(tmp_path, accuracies, best):
    """Evaluations come in the order max, max_calib, min, min_calib, epoch by epoch."""
    turns = [dict(map=value) for accuracy in accuracies for value in (.9, .9, .9, accuracy)]
    runner = build_runner(
        tmp_path, hooks=[calibration()], metric=TellingMetric(turns), val_cfg=dict(calib_bn='both'),
        train_cfg=dict(max_epochs=3),
        default_hooks=checkpoint_cfg(interval=1, max_keep_ckpts=1, save_best='min_calib/coco/map', rule='greater'))
    runner.train()
    names = sorted(path.name for path in tmp_path.glob('*.pth'))
    assert names == [f'best_min_calib_coco_map_epoch_{best}.pth', 'epoch_3.pth']
    assert runner.message_hub.get_info('best_score') == max(accuracies)
    load_checkpoint(ToyModel(), str(tmp_path / names[0]), strict=True)


class KeepWeights(Hook):
    """Parameters after each iteration, seen before any other hook."""

    priority = 'VERY_HIGH'

    def __init__(self):
        self.weights = []

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.weights.append({name: value.detach().clone() for name, value in runner.model.named_parameters()})


def test_ema_is_evaluated_and_put_back(tmp_path):
    watch = KeepWeights()
    runner = build_runner(tmp_path, hooks=[watch, EMAHook(momentum=.3), calibration()], val_cfg=dict(calib_bn='both'),
                          train_cfg=dict(max_epochs=2, val_interval=2), default_hooks=checkpoint_cfg(interval=2))
    runner.train()
    average = dict(ToyModel().named_parameters())
    for step, weights in enumerate(watch.weights):
        # The first update copies; see ``BaseAveragedModel.update_parameters``.
        average = weights if step == 0 else {
            name: average[name] * .7 + value * .3 for name, value in weights.items()}
    for name, value in runner.model.named_parameters():
        assert torch.equal(value, watch.weights[-1][name]), name
    saved = torch.load(tmp_path / 'epoch_2.pth')['state_dict']
    averaged = ToyModel()
    averaged.load_state_dict(runner.model.state_dict())  # the running statistics are not averaged
    for name, value in averaged.named_parameters():
        torch.testing.assert_close(saved[name], average[name])
        value.data.copy_(average[name])
    space = Supernet(averaged).space
    for name, subnet in (('max', space.max()), ('min', space.min())):
        for calibrate in (False, True):
            for metric, value in expected_metrics(averaged, subnet, calibrate).items():
                logged = runner.message_hub.get_scalar(f'val/{name}{"_calib" * calibrate}/{metric}').current()
                assert logged == pytest.approx(value, rel=1e-4)


@pytest.mark.parametrize('buffers', [False, True])
@pytest.mark.parametrize('loop', [dict(max_epochs=2), dict(type='mmbignas.SandwichIterTrainLoop', max_iters=8)])
def test_evaluating_the_average_leaves_no_trace(tmp_path, buffers, loop):
    """Neither in the trained weights nor in the averaged ones, nor in the running statistics of both."""
    states = []
    for interval in (1, 100):
        ema = EMAHook(momentum=.3, update_buffers=buffers)
        runner = build_runner(tmp_path, hooks=[ema, calibration()], val_cfg=dict(calib_bn='both'),
                              train_cfg=dict(**loop, val_interval=interval, val_begin=interval))
        runner.train()
        assert ('val/min_calib/toy/accuracy' in runner.message_hub.log_scalars) == (interval == 1)
        states.append((runner.model.state_dict(), ema.ema_model.state_dict(), runner.optim_wrapper.state_dict()))
    assert_same(*states)
    trained, averaged = states[0][:2]
    for name, value in trained.items():
        if value.is_floating_point():
            moving = not name.startswith('spare') and ('running' not in name or buffers)
            assert torch.equal(value, averaged[f'module.{name}']) is not moving, name


def test_log_file(tmp_path):
    runner = build_runner(tmp_path, val_cfg={}, default_hooks=dict(logger=dict(type='LoggerHook', interval=2),
                                                                   timer=dict(type='IterTimerHook')))
    runner.train()
    text = Path(runner.log_dir, 'vis_data', 'scalars.json').read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    train = [line for line in lines if 'loss' in line]
    assert [line['step'] for line in train] == [2, 4]
    losses = [f'{name}.{entry}' for name in ('max', 'min', 'random0', 'random1')
              for entry in ('loss', 'loss_cls', 'loss_norm', 'accuracy')]
    for line in train:
        assert {'lr', 'loss', 'time', *losses} <= set(line)
        assert line['loss'] == pytest.approx(sum(line[name] for name in losses if name.endswith('.loss')))
    assert set(lines[-1]) >= {f'{name}/toy/{metric}' for name in ('max', 'min')
                              for metric in ('accuracy', 'likelihood')}


def test_early_stopping_on_a_subnet(tmp_path):
    """The smallest gets no better from the second validation on, whatever the largest does."""
    turns = [dict(map=value) for pair in ((.1, .5), (.2, .4), (.3, .4), (.4, .4), (.5, .4)) for value in pair]
    runner = build_runner(tmp_path, metric=TellingMetric(turns), val_cfg={}, train_cfg=dict(max_epochs=9),
                          hooks=[EarlyStoppingHook(monitor='min/coco/map', rule='greater', patience=2)])
    runner.train()
    assert runner.epoch == 3


def test_the_toy_learns(tmp_path):
    """All of the above would also hold for training that does nothing."""
    runner = build_runner(tmp_path, hooks=[calibration()], val_cfg=dict(calib_bn=True), train_cfg=dict(max_epochs=40),
                          optim_wrapper=dict(optimizer=dict(type='AdamW', lr=.01)))
    before = sum(expected_metrics(runner.model, Supernet(runner.model).space.max(), True).values())
    runner.train()
    first, *_, last = runner.message_hub.log_scalars['train/loss'].data[0]
    assert last < first - .5
    assert len(train_batches()) * 40 == runner.iter
    assert before != runner.message_hub.get_scalar('val/max_calib/toy/accuracy').current()
