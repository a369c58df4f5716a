"""Steps with losses or gradients that are not finite: nothing is left of them, and many in a row end the training."""
import copy
import math

import pytest
import torch
from mmengine.optim import OptimWrapper

from mmbignas.errors import ConfigError
from mmbignas.supernet import Supernet
from mmbignas.train import SkipNonFiniteHook
from tests.toy import PassRecorder, ToyDataset, ToyModel, build_runner, dataloader

STRATEGY = ['max', 'min', 'random']


class BrokenDataset(ToyDataset):
    """A data set in which the first image of some batches of six is NaN."""

    def __init__(self, batches, broken):
        super().__init__(6 * batches)
        for batch in broken:
            self.images[6 * batch] = math.nan


class BrokenGradient(ToyModel):
    """Its losses are those of the toy model, but where an image is all 1, a gradient is NaN."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        outputs = super().forward(inputs, data_samples, mode)
        if mode == 'loss' and (inputs == 1.5).all((1, 2, 3)).any():
            outputs['loss_root'] = (0 * self.head.weight.sum()).sqrt()
        return outputs


class Steep(ToyModel):
    """With losses so great that gradients overflow at the greatest scale."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        outputs = super().forward(inputs, data_samples, mode)
        return dict(loss_cls=64 * outputs['loss_cls']) if mode == 'loss' else outputs


class ScaledOptimWrapper(OptimWrapper):
    """A loss scaler as in ``AmpOptimWrapper``, which does not run on a CPU."""

    def __init__(self, *args, init_scale, **kwargs):
        super().__init__(*args, **kwargs)
        self.loss_scaler = torch.amp.GradScaler('cpu', init_scale=init_scale)
        self.skipped = 0

    def backward(self, loss, **kwargs):
        self.loss_scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        before = self.loss_scaler.get_scale()
        self.loss_scaler.step(self.optimizer)
        self.loss_scaler.update()
        self.skipped += self.loss_scaler.get_scale() < before


def train(tmp_path, dataset, hook=None, model=None, **kwargs):
    """Train; the runner, the passes, and what was logged as a warning."""
    passes, warnings = PassRecorder(), []
    runner = build_runner(tmp_path, model or ToyModel(), hooks=[passes, *([hook] if hook else [])],
                          train_dataloader=dict(dataloader(6), dataset=dataset),
                          train_cfg=dict(sample_subnet_num=3, sample_strategy=STRATEGY,
                                         **kwargs.pop('train_cfg', {})), **kwargs)
    runner.logger.warning = warnings.append
    runner.train()
    return runner, passes.passes, [warning for warning in warnings if 'no optimizer step' in warning]


def plain(dataset, passes, groups):
    """The toy model trained with torch alone on some iterations, of which each group makes one step."""
    model = ToyModel().train()
    sgd, supernet = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9), Supernet(model)
    batches = len(dataset) // 6
    for group in groups:
        for iteration in group:
            rows = slice(6 * (iteration % batches), 6 * (iteration % batches) + 6)
            data = model.data_preprocessor(dict(inputs=dataset.images[rows], data_samples=dataset.labels[rows]), True)
            for own in passes:
                if own.iteration == iteration:
                    supernet.apply(own.subnet)
                    losses = model(**data, mode='loss')
                    ((losses['loss_cls'] + losses['loss_norm']) / len(group)).backward()
        sgd.step()
        sgd.zero_grad()
    return model, sgd


def assert_same(runner, model, sgd):
    ours = runner.optim_wrapper.optimizer
    for (name, value), (_, expected) in zip(runner.model.state_dict().items(), model.state_dict().items(), strict=True):
        assert torch.equal(value, expected), name
    for mine, theirs in zip(ours.param_groups[0]['params'], sgd.param_groups[0]['params'], strict=True):
        if theirs in sgd.state:
            assert torch.equal(ours.state[mine]['momentum_buffer'], sgd.state[theirs]['momentum_buffer'])


def test_nothing_is_left_of_a_broken_batch(tmp_path):
    """Weights, momenta and running statistics are those of a training without it."""
    dataset = BrokenDataset(4, [1])
    runner, passes, warnings = train(tmp_path, dataset, SkipNonFiniteHook(), train_cfg=dict(max_epochs=2))
    assert_same(runner, *plain(dataset, passes, [[0], [2], [3], [4], [6], [7]]))
    assert [warning.split(':')[0] for warning in warnings] == ['Iteration 2', 'Iteration 6']
    for own in passes[3:6]:
        assert f'{own.name}, iteration 2, loss here nan, image size of the batch: {own.subnet.to_dict()}' in warnings[0]
    assert '(1 in a row, 2 in this training)' in warnings[1]
    scalars = runner.message_hub.log_scalars['train/skipped_steps'].data[0]
    assert list(scalars) == [1, 2]


def test_without_the_hook_everything_is_lost(tmp_path):
    runner, _, _ = train(tmp_path, BrokenDataset(4, [1]))
    assert runner.model.head.weight.isnan().all()


@pytest.mark.parametrize('broken', [2, 3])
def test_accumulated_gradients_are_dropped_together(tmp_path, broken):
    dataset = BrokenDataset(6, [broken])
    runner, passes, warnings = train(tmp_path, dataset, SkipNonFiniteHook(),
                                     optim_wrapper=dict(accumulative_counts=2))
    assert_same(runner, *plain(dataset, passes, [[0, 1], [4, 5]]))
    assert len(warnings) == 1
    assert warnings[0].count(f'iteration {broken + 1}, loss here nan') == 3
    assert f'iteration {5 - broken + 1}, ' not in warnings[0]


def test_a_gradient_that_is_not_finite(tmp_path):
    dataset = ToyDataset(24)
    dataset.images[7] = 1
    runner, passes, warnings = train(tmp_path, dataset, SkipNonFiniteHook(), BrokenGradient())
    assert_same(runner, *plain(dataset, passes, [[0], [2], [3]]))
    assert len(warnings) == 1
    assert 'all losses are finite, but a gradient is not finite' in warnings[0]


def test_a_loss_scaler_finds_its_scale(tmp_path):
    """Overflows in gradients are the scaler's, losses that are not finite are ours and leave the scale alone."""
    dataset = BrokenDataset(8, [7])
    runner, _, warnings = train(tmp_path, dataset, SkipNonFiniteHook(max_in_a_row=2), Steep(), optim_wrapper=dict(
        type=ScaledOptimWrapper, init_scale=2.**127, optimizer=dict(type='SGD', lr=1e-3)))
    wrapper = runner.optim_wrapper
    assert wrapper.skipped > 2
    assert wrapper.loss_scaler.get_scale() == 2.**(127 - wrapper.skipped)
    assert [warning.split(':')[0] for warning in warnings] == ['Iteration 8']
    assert all(value.isfinite().all() for value in runner.model.state_dict().values())


def test_many_in_a_row_end_the_training(tmp_path):
    """And the last checkpoint with good weights is still there, though only one is kept."""
    dataset = BrokenDataset(12, range(4, 12))
    hook = SkipNonFiniteHook(max_in_a_row=3)
    message = (r'iteration 7: a loss is not finite; no step could be taken 3 times in a row '
               r'\(SkipNonFiniteHook.max_in_a_row=3\). The last checkpoint is .*iter_4.pth')
    with pytest.raises(RuntimeError, match=message):
        train(tmp_path, dataset, hook, default_hooks=dict(checkpoint=dict(
            type='CheckpointHook', interval=1, by_epoch=False, max_keep_ckpts=1)))
    assert [file.name for file in tmp_path.glob('*.pth')] == ['iter_4.pth']
    state = torch.load(tmp_path / 'iter_4.pth', weights_only=False)['state_dict']
    assert all(value.isfinite().all() for value in state.values())


def test_good_steps_begin_the_count_anew(tmp_path):
    """And checkpoints are written again."""
    dataset = BrokenDataset(8, [1, 2, 4, 5])
    _, _, warnings = train(tmp_path, dataset, SkipNonFiniteHook(max_in_a_row=3), default_hooks=dict(checkpoint=dict(
        type='CheckpointHook', interval=1, by_epoch=False)))
    assert len(warnings) == 4
    assert sorted(file.name for file in tmp_path.glob('*.pth')) == [f'iter_{number}.pth' for number in (1, 4, 7, 8)]


def test_the_count_goes_on_after_a_resume(tmp_path):
    dataset, checkpoint = BrokenDataset(4, [1]), dict(checkpoint=dict(type='CheckpointHook', interval=1))
    train(tmp_path, dataset, SkipNonFiniteHook(), default_hooks=checkpoint)
    _, _, warnings = train(tmp_path, dataset, SkipNonFiniteHook(), train_cfg=dict(max_epochs=2),
                           default_hooks=checkpoint, resume=True)
    assert ['(1 in a row, 2 in this training)' in warning for warning in warnings] == [True]


def test_good_training_is_not_changed(tmp_path):
    dataset = ToyDataset(24)
    first, second = (train(tmp_path / str(number), copy.deepcopy(dataset), hook)[0]
                     for number, hook in enumerate([SkipNonFiniteHook(), None]))
    for (name, value), expected in zip(first.model.state_dict().items(), second.model.state_dict().values()):
        assert torch.equal(value, expected), name


def test_refused_numbers():
    with pytest.raises(ConfigError, match='SkipNonFiniteHook.max_in_a_row must be an integer >= 1, got 0'):
        SkipNonFiniteHook(max_in_a_row=0)


def test_a_loop_without_subnets_is_refused(tmp_path):
    runner = build_runner(tmp_path, hooks=[SkipNonFiniteHook()], train_cfg=dict(type='EpochBasedTrainLoop'))
    with pytest.raises(ConfigError, match='train_cfg.type must be SandwichTrainLoop .* SkipNonFiniteHook, got .Epoch'):
        runner.train()
