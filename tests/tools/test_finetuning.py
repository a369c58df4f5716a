"""Fine-tuning of one network: what happens before the first iteration."""
import copy
import os
import random
import re

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import EarlyStoppingHook, EMAHook, Hook
from mmengine.runner import ValLoop
from torch import nn

from mmbignas.errors import ConfigError
from mmbignas.supernet import Supernet, calibrate_bn
from mmbignas.train import CalibrateFirstHook, ValidateFirstHook
from tests.distributed import run_processes
from tests.runs import assert_same_state
from tests.toy import TellingMetric, ToyModel, build_runner, calibration_batches, dataloader, expected_metrics

LOOPS = dict(epoch=dict(type='EpochBasedTrainLoop', max_epochs=2),
             iteration=dict(type='IterBasedTrainLoop', max_iters=8, val_interval=4))


class PlainValLoop(ValLoop):
    """MMEngine's, without the argument that :func:`build_runner` gives to those of supernets."""

    def __init__(self, *args, calib_bn, **kwargs):
        super().__init__(*args, **kwargs)


def plain_runner(folder, hooks, loop='epoch', model=None, val_cfg=dict(type=PlainValLoop), **kwargs):  # noqa: B006
    """Eight iterations of one network, validated after each four."""
    return build_runner(folder, model or ToyModel(drop=.3), hooks=hooks, val_cfg=val_cfg,
                        **{'train_cfg': LOOPS[loop], **kwargs})


class Watch(Hook):
    """Notes what happens, and uses up random numbers in validation."""

    def __init__(self):
        self.events, self.states = [], []

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        random.random(), np.random.rand(3), torch.rand(5)  # noqa: NPY002

    def after_val_epoch(self, runner, metrics=None):
        assert not runner.model.training
        self.events.append((runner.iter, metrics))
        self.states.append(copy.deepcopy(runner.model.state_dict()))

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        assert all(module.training for module in runner.model.modules())


@pytest.fixture
def log(monkeypatch):
    """What the runners log, at level INFO."""
    lines = []
    monkeypatch.setattr('mmengine.logging.MMLogger.info', lambda self, text, *args, **kwargs: lines.append(text))
    return lines


def val_history(runner, name):
    return list(runner.message_hub.get_scalar(f'val/toy/{name}').data[0])


@pytest.mark.parametrize('loop', LOOPS)
@pytest.mark.parametrize('validate_comes_first', [True, False])
def test_calibrates_validates_trains(tmp_path, log, loop, validate_comes_first):
    model, watch = ToyModel(drop=.3, seed=3), Watch()
    model.backbone.blocks[0][1].running_mean.fill_(5.)  # as wrong as can be
    before = copy.deepcopy(model)
    hooks = [ValidateFirstHook(), CalibrateFirstHook(12, dataloader(24))]
    runner = plain_runner(tmp_path, hooks if validate_comes_first else hooks[::-1], loop, model)
    runner.register_hook(watch)
    runner.train()
    assert [iteration for iteration, _ in watch.events] == [0, 4, 8]
    expected = expected_metrics(before, Supernet(before).space.max(), calibrate=True)
    assert watch.events[0][1] == pytest.approx(expected)
    assert expected != pytest.approx(expected_metrics(before, Supernet(before).space.max(), calibrate=False))
    assert_same_state({name: value for name, value in before.state_dict().items() if 'running' not in name},
                      {name: value for name, value in watch.states[0].items() if 'running' not in name})
    calibrate_bn(before, calibration_batches())
    for name, value in before.state_dict().items():
        torch.testing.assert_close(watch.states[0][name], value)
    assert val_history(runner, 'likelihood') == [metrics['toy/likelihood'] for _, metrics in watch.events]
    [summary] = [text for text in log if 'before -> after' in text]
    for name, value in watch.events[0][1].items():
        assert f'  {name}: {value:.4f} -> {watch.events[2][1][name]:.4f}' in summary.splitlines()


@pytest.mark.parametrize('loop', LOOPS)
def test_training_is_the_same_without_the_validation(tmp_path, loop):
    states = []
    for hooks in ([], [ValidateFirstHook()]):
        own = [CalibrateFirstHook(12, dataloader(24)), Watch(), *hooks]
        runner = plain_runner(tmp_path, own, loop, train_dataloader=dict(
            dataloader(24, endless=loop == 'iteration'), sampler=dict(
                type='InfiniteSampler' if loop == 'iteration' else 'DefaultSampler', shuffle=True)))
        runner.train()
        states.append(runner.model.state_dict())
    assert_same_state(*states)
    assert not torch.equal(states[0]['head.weight'], ToyModel(drop=.3).head.weight)


def test_schedules_and_early_stopping_do_not_count_it(tmp_path):
    """A metric that never gets better: both go by the validations of the training alone."""
    rates, epochs = [], []
    for hooks in ([], [ValidateFirstHook()]):
        watch, stopping = RateWatch(), EarlyStoppingHook(monitor='coco/map', patience=3, rule='greater')
        runner = plain_runner(
            tmp_path, [watch, stopping, *hooks], metric=TellingMetric([dict(map=.5)] * 9), param_scheduler=dict(
                type='ReduceOnPlateauLR', monitor='coco/map', rule='greater', patience=1, factor=.1, by_epoch=True),
            train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=6))
        runner.train()
        rates.append(watch.rates)
        epochs.append(runner.epoch)
    assert rates[0] == rates[1] and len(set(rates[0])) > 1
    assert epochs[0] == epochs[1] < 6


class RateWatch(Hook):
    """Notes the learning rate of each epoch."""

    def __init__(self):
        self.rates = []

    def before_train_epoch(self, runner):
        self.rates.append(runner.optim_wrapper.get_lr()['lr'][0])


def checkpoint(**kwargs):
    return dict(checkpoint=dict(type='CheckpointHook', interval=1, **kwargs))


def test_resuming_does_neither_again_and_knows_the_first_metrics(tmp_path, log, monkeypatch):
    watches, summaries = [Watch(), Watch()], []
    for name, watch in zip(('whole', 'resumed'), watches):
        goes_on = name == 'resumed'
        if goes_on:
            monkeypatch.setattr('mmbignas.supernet.calibration.calibrate_bn', None)
        plain_runner(tmp_path / name, [watch, ValidateFirstHook(), CalibrateFirstHook(12, dataloader(24))],
                     model=ToyModel(), resume=goes_on, default_hooks=checkpoint(),
                     load_from=str(tmp_path / 'whole' / 'epoch_1.pth') if goes_on else None).train()
        summaries.append([text for text in log if 'before -> after' in text])
        log.clear()
    assert watches[1].events == watches[0].events[2:]
    assert summaries[1] == [summaries[0][0].replace('whole', 'resumed')]
    assert f'last_ckpt: {tmp_path / "whole" / "epoch_2.pth"}' in summaries[0][0]


def test_a_finished_run_has_nothing_to_say(tmp_path, log):
    plain_runner(tmp_path, [ValidateFirstHook()], default_hooks=checkpoint()).train()
    log.clear()
    plain_runner(tmp_path, [ValidateFirstHook()], default_hooks=checkpoint(), resume=True).train()
    assert not [text for text in log if ' -> ' in text]


def test_the_best_checkpoint_may_be_that_of_before(tmp_path, log):
    model = ToyModel()
    hooks = [ValidateFirstHook(), CalibrateFirstHook(12, dataloader(24))]
    runner = plain_runner(tmp_path, hooks, model=model, default_hooks=checkpoint(
        save_best='toy/likelihood', rule='greater'), optim_wrapper=dict(optimizer=dict(type='SGD', lr=50.)))
    runner.train()
    best = tmp_path / 'best_toy_likelihood_epoch_0.pth'
    assert f'  best_ckpt: {best}' in next(text for text in log if 'before -> after' in text)
    assert torch.equal(torch.load(best)['state_dict']['head.weight'], ToyModel().head.weight)


def test_averaged_weights_start_from_those_of_the_model(tmp_path):
    """EMAHook copies the model before it is initialised."""
    class Initialised(ToyModel):
        def init_weights(self):
            super().init_weights()
            nn.init.constant_(self.head.weight, .25)

    models, watches = [Initialised(), Initialised()], [Watch(), Watch()]
    for model, watch, hooks in zip(models, watches, ([], [EMAHook(momentum=.3)])):
        runner = plain_runner(tmp_path, [watch, ValidateFirstHook(), *hooks], model=model)
        runner.train()
    assert watches[1].events[0] == watches[0].events[0]
    assert watches[1].events[1] != watches[0].events[1]
    assert_same_state(models[1].state_dict(), models[0].state_dict())


class WithoutDetections(Watch):
    def after_val_epoch(self, runner, metrics=None):
        if runner.iter == 0:
            metrics.clear()


def test_a_metric_that_was_not_there_before(tmp_path, log):
    hook = WithoutDetections()
    hook.priority = 'HIGHEST'
    plain_runner(tmp_path, [ValidateFirstHook(), hook]).train()
    [summary] = [text for text in log if 'before -> after' in text]
    assert re.search(r'toy/likelihood: none -> -\d', summary)


@pytest.mark.parametrize(('hooks', 'kwargs', 'parts'), [
    ([ValidateFirstHook()], dict(val_cfg=None), ['ValidateFirstHook', 'val_cfg', 'None']),
    ([dict(type='mmbignas.ValidateFirstHook', priority='HIGH'),
      dict(type='mmbignas.CalibrateFirstHook', dataloader=dict(dataset=dict()))], {},
     ['ValidateFirstHook.priority', "'HIGH'", 'CalibrateFirstHook', "'NORMAL'", "'LOWEST'"]),
    ([dict(type='mmbignas.ValidateFirstHook', priority='NORMAL')], dict(default_hooks=checkpoint()),
     ['ValidateFirstHook.priority', "'NORMAL'", 'CheckpointHook']),
    ([CalibrateFirstHook()], {}, ['CalibrateFirstHook.dataloader', 'None', 'no train_dataloader']),
    ([CalibrateFirstHook(4, dict(dataset=dict(ann_file='none.json')))], {},
     ['CalibrateFirstHook.dataloader.dataset.ann_file', 'none.json']),
])
def test_what_cannot_work_is_refused_before_training(tmp_path, hooks, kwargs, parts):
    runner = plain_runner(tmp_path, hooks, **kwargs)
    with pytest.raises(ConfigError) as error:
        runner.train()
    assert '\n' not in str(error.value)
    assert runner.iter == 0
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize(('arguments', 'parts'), [
    ((0, ), ['CalibrateFirstHook.num_images must be an integer >= 1, got 0']),
    ((8, dict(batch_size=2)), ['CalibrateFirstHook.dataloader', "{'batch_size': 2}", 'a dict with dataset']),
])
def test_bad_arguments(arguments, parts):
    with pytest.raises(ConfigError) as error:
        CalibrateFirstHook(*arguments)
    for part in parts:
        assert part in str(error.value)


def share(rank, folder):
    """Fine-tunes in one of two processes."""
    os.environ['LOCAL_RANK'] = str(rank)
    watch, model = Watch(), ToyModel(seed=rank)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=True)
    plain_runner(folder, [watch, ValidateFirstHook(), CalibrateFirstHook(12, dataloader(24))], model=model,
                 launcher='pytorch', cfg=Config(dict(model_wrapper_cfg=wrapper))).train()
    return dict(metrics=[metrics for _, metrics in watch.events], state=model.state_dict())


def test_in_two_processes(tmp_path):
    first, second = run_processes(share, str(tmp_path))
    assert first['metrics'] == second['metrics']
    assert len(first['metrics']) == 3
    assert_same_state(first['state'], second['state'], only='weight')
    model = ToyModel(seed=0)
    calibrate_bn(model, calibration_batches())  # the batches of one process; each of two has one of them
    expected = expected_metrics(model, Supernet(model).space.max(), calibrate=False)
    assert first['metrics'][0] == pytest.approx(expected)
