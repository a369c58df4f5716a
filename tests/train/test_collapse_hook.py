"""A loss of the largest subnet that comes back to where it began."""
import math
import re

import numpy as np
import pytest
import torch
from mmengine.hooks import Hook

from mmbignas.errors import ConfigError
from mmbignas.train import CollapseHook
from tests.toy import ToyModel, build_runner


class Scripted(ToyModel):
    """Its losses are those of a list, one an iteration; those of subnets other than the largest are a hundred."""

    def __init__(self, losses):
        super().__init__()
        self.losses = losses

    def forward(self, inputs, data_samples=None, mode='tensor'):
        outputs = super().forward(inputs, data_samples, mode)
        if mode != 'loss':
            return outputs
        wide = self.backbone.blocks[0][0].active_out_channels == 8
        deep = getattr(self.backbone.blocks[2], 'is_active', True)
        return dict(loss=0 * outputs['loss_cls'] + (self.losses[self.iteration] if wide and deep else 100.))


class Clock(Hook):
    def before_train_iter(self, runner, batch_idx, data_batch=None):
        runner.model.iteration = runner.iter


def train(tmp_path, losses, hook, strategy=('max', 'min'), model=None, **kwargs):
    """The warnings of a training with these losses, and the runner."""
    warnings = []
    train_cfg = dict(type='mmbignas.SandwichIterTrainLoop', max_iters=len(losses), sample_subnet_num=len(strategy),
                     sample_strategy=strategy)
    runner = build_runner(tmp_path, model or Scripted(losses), hooks=[Clock(), hook], train_cfg=train_cfg, **kwargs)
    runner.logger.warning = warnings.append
    runner.train()
    return [warning for warning in warnings if 'collapsed' in warning], runner


def told(warning):
    """Median, iteration, first median, and iteration after which it began, as a warning has them."""
    match = re.fullmatch(r"The largest subnet's loss has collapsed: (\S+) is the median of the \d+ passes up to "
                         r'iteration (\d+), (\S+) that of the first \d+ of the training. It began after iteration '
                         r'(\d+), when the median was still below \S+\.', warning)
    assert match, warning
    return tuple(map(float, match.groups()))


GOOD = [2.] * 10 + [2. - .1 * step for step in range(15)] + [.5] * 15
FALL = [.5 + .16 * step for step in range(10)] + [2.] * 30


def expected(losses, window, learned=.7, collapsed=.95):
    """Where a collapse is, by a look at the medians of all windows."""
    first = np.median(losses[:window])
    medians = {end: np.median(losses[end - window:end]) for end in range(2 * window, len(losses) + 1)}
    good = [end for end, value in medians.items() if value < learned * first]
    bad = [end for end, value in medians.items() if good and end > good[0] and value > collapsed * first]
    return (medians[bad[0]], bad[0], first, max(end for end in good if end < bad[0])) if bad else None


@pytest.mark.parametrize('window', [1, 5, 10])
def test_a_collapse_is_told_once(tmp_path, window):
    losses = GOOD + FALL
    warnings, _ = train(tmp_path, losses, CollapseHook(window))
    assert len(warnings) == 1
    assert told(warnings[0]) == pytest.approx(expected(losses, window), rel=1e-3)


@pytest.mark.parametrize('losses', [
    GOOD,
    [2.] * 60,  # never learned anything
    GOOD + [.5 + .05 * step for step in range(25)] + [1.7] * 20,  # worse, but not as bad as in the beginning
    GOOD + [50.] * 1 + [.5] * 30,  # one bad batch
    GOOD + [math.nan] * 20 + [.5] * 20,
])
def test_no_collapse(tmp_path, losses):
    assert train(tmp_path, losses, CollapseHook(10))[0] == []


def test_a_second_collapse_is_told_too(tmp_path):
    warnings, _ = train(tmp_path, GOOD + FALL + [.5] * 20 + FALL, CollapseHook(5))
    assert len(warnings) == 2
    assert told(warnings[0])[3] < told(warnings[0])[1] < told(warnings[1])[3] < told(warnings[1])[1]


def test_stop(tmp_path):
    """The error comes before a checkpoint of what is left."""
    losses = GOOD + FALL
    end = int(expected(losses, 10)[1])
    with pytest.raises(RuntimeError, match=rf'collapsed: .* up to iteration {end}, .*\(CollapseHook.stop=True\)'):
        train(tmp_path, losses, CollapseHook(10, stop=True), default_hooks=dict(checkpoint=dict(
            type='CheckpointHook', interval=1, by_epoch=False, max_keep_ckpts=-1)))
    # looked at every other iteration
    assert max(int(file.stem[5:]) for file in tmp_path.glob('*.pth')) in (end - 1, end)


def test_the_beginning_is_kept_over_a_resume(tmp_path):
    losses = GOOD + FALL
    checkpoint = dict(checkpoint=dict(type='CheckpointHook', interval=40, by_epoch=False))
    train(tmp_path, losses[:40], CollapseHook(10), default_hooks=checkpoint)
    warnings, _ = train(tmp_path, losses, CollapseHook(10), default_hooks=checkpoint, resume=True)
    assert [told(warning) for warning in warnings] == [pytest.approx(expected(losses, 10), rel=1e-3)]


class Absurd(Hook):
    """From some iteration on, the learning rate is absurd."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter >= 150:
            runner.optim_wrapper.param_groups[0]['lr'] = 30.


def test_an_absurd_learning_rate(tmp_path):
    """A training that learns its few images, and is then thrown away."""
    torch.manual_seed(0)
    warnings = []
    runner = build_runner(tmp_path, hooks=[CollapseHook(10, learned=.85), Absurd()], batches=1, train_cfg=dict(
        type='mmbignas.SandwichIterTrainLoop', max_iters=190, sample_subnet_num=2, sample_strategy=['max', 'min']),
        optim_wrapper=dict(optimizer=dict(type='Adam', lr=.02)))
    runner.logger.warning = warnings.append
    runner.train()
    warnings = [told(warning) for warning in warnings if 'collapsed' in warning]
    assert len(warnings) == 1
    assert 150 <= warnings[0][3] < warnings[0][1] <= 175


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(window=0), 'CollapseHook.window must be an integer >= 1, got 0'),
    (dict(learned=0), 'CollapseHook.learned must be a number > 0, got 0'),
    (dict(collapsed=True), 'CollapseHook.collapsed must be a number > 0, got True'),
    (dict(learned=.9, collapsed=.9), 'CollapseHook.learned must be a number below CollapseHook.collapsed=0.9, got 0.9'),
    (dict(stop=1), 'CollapseHook.stop must be True or False, got 1'),
])
def test_refused_arguments(arguments, message):
    with pytest.raises(ConfigError, match=re.escape(message)):
        CollapseHook(**arguments)


def test_a_training_without_the_largest_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"sample_strategy must be a list with max .* got \['min', 'random0'\]"):
        train(tmp_path, [1.], CollapseHook(), strategy=('min', 'random'))
