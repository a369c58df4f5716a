"""One iteration, and whole runs, of the sandwich loops against loops written out by hand."""
import copy
import random

import pytest
import torch
from mmengine.hooks import Hook
from mmengine.model import BaseModel
from mmengine.optim import OptimWrapper, OptimWrapperDict
from torch import nn
from torch.nn import functional as F

from mmbignas.distill import DistillHook
from mmbignas.errors import ConfigError
from mmbignas.evaluation import BNCalibrationHook
from mmbignas.supernet import Supernet
from mmbignas.train.sandwich_rule import SandwichRule
from tests import small_models
from tests.toy import (
    PassRecorder,
    RecordingOptimWrapper,
    ToyModel,
    add_gradients,
    assert_gradients_close,
    build_runner,
    dataloader,
    gradients_of,
    losses_of,
    train_batches,
)

FIXED = Supernet(ToyModel()).space.sample(random.Random(3)).to_dict()
STRATEGIES = [
    ['max', 'min', 'random', 'random'],
    ['max', 'min'],
    ['min', 'min'],
    ['random', 'max', FIXED, 'middle', 'random', 'random'],
]


def record(tmp_path, model=None, **kwargs):
    """Train with a recorder of passes and of steps."""
    model, passes = model or ToyModel(), PassRecorder()
    optim_wrapper = dict(type=RecordingOptimWrapper, **kwargs.pop('optim_wrapper', {}))
    hooks = [passes, *kwargs.pop('hooks', ())]
    runner = build_runner(tmp_path, model, hooks=hooks, optim_wrapper=optim_wrapper, **kwargs)
    runner.train()
    return runner, passes.passes


def passes_by_iteration(passes):
    return [[own for own in passes if own.iteration == iteration] for iteration in range(passes[-1].iteration + 1)]


def model_at(state):
    model = ToyModel()
    model.load_state_dict(state)
    return model


def plain_training(model, subnets, batches, group=1, max_norm=None):
    """Sandwich training with torch alone: ``subnets`` of each iteration, steps every ``group`` iterations."""
    optimizer = torch.optim.SGD(model.parameters(), lr=.1, momentum=.9)
    supernet, remainder = Supernet(model.train()), len(subnets) % group
    for index, own in enumerate(subnets):
        factor = group if index < len(subnets) - remainder else remainder
        data = model.data_preprocessor(batches[index % len(batches)], True)
        for subnet in own:
            supernet.apply(subnet)
            losses = model(**data, mode='loss')
            ((losses['loss_cls'] + losses['loss_norm']) / factor).backward()
        if (index + 1) % group == 0 or index + 1 == len(subnets):
            if max_norm:
                nn.utils.clip_grad_norm_(model.parameters(), max_norm)
            optimizer.step()
            optimizer.zero_grad()
    return model


def assert_same_state(first, second):
    assert first.keys() == second.keys()
    for name, value in first.items():
        assert torch.equal(value, second[name]), name


def strategy_cfg(strategy, **kwargs):
    return dict(sample_subnet_num=len(strategy), sample_strategy=strategy, **kwargs)


@pytest.mark.parametrize('strategy', STRATEGIES)
@pytest.mark.parametrize('seed', [0, 1])
def test_gradient_is_the_sum_over_the_passes(tmp_path, strategy, seed):
    model = ToyModel(seed=seed)
    runner, passes = record(tmp_path, model, seed=seed, train_cfg=strategy_cfg(strategy, max_epochs=2),
                            optim_wrapper=dict(clip_grad=dict(max_norm=1e-3)))
    steps, passes = runner.optim_wrapper, passes_by_iteration(passes)
    assert len(steps.gradients) == steps.clips == len(passes) == 8
    rule = SandwichRule(Supernet(model).space, len(strategy), strategy)
    assert passes == [rule.passes(seed, iteration) for iteration in range(8)]
    for state, gradients, own, batch in zip(steps.states, steps.gradients, passes, train_batches() * 2):
        expected = add_gradients([gradients_of(model_at(state), batch, one.subnet) for one in own])
        assert_gradients_close(gradients, expected)


def test_what_no_pass_used_has_no_gradient(tmp_path):
    runner, _ = record(tmp_path, train_cfg=strategy_cfg(['min', 'min']))
    for gradients in runner.optim_wrapper.gradients:
        absent = {name for name, gradient in gradients.items() if gradient is None}
        assert absent == {name for name in gradients if name.startswith(('spare', 'backbone.blocks.1',
                                                                         'backbone.blocks.2'))}


class DetectionDataset(torch.utils.data.Dataset):
    """Two images of noise with a few boxes."""

    metainfo = dict(classes=tuple('abc'))

    def __init__(self):
        self.batch = small_models.batch()

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.batch.items()}


def test_gradient_of_a_detector(tmp_path):
    model, dataset = small_models.scramble(small_models.build(small_models.retinanet())), DetectionDataset()
    runner, passes = record(tmp_path, model, train_dataloader=dict(
        dataset=dataset, batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)))
    steps = runner.optim_wrapper
    model.load_state_dict(steps.states[0])
    batch = dict(inputs=dataset.batch['inputs'], data_samples=dataset.batch['data_samples'])
    expected = add_gradients([gradients_of(model, batch, own.subnet) for own in passes])
    assert len(steps.gradients) == 1
    scale = max(gradient.abs().max() for gradient in expected.values() if gradient is not None)
    for name, gradient in steps.gradients[0].items():
        if expected[name] is None:
            assert gradient is None, name
        else:
            torch.testing.assert_close(gradient, expected[name], rtol=1e-4, atol=1e-6 * scale.item())


@pytest.mark.parametrize('strategy', STRATEGIES)
@pytest.mark.parametrize(('group', 'max_norm'), [(1, None), (1, .05), (2, None), (3, .05)])
def test_weights_equal_those_of_a_plain_loop(tmp_path, strategy, group, max_norm):
    """Five batches an epoch, so that accumulation over 2 or 3 leaves a remainder at the end."""
    model = ToyModel()
    expected = copy.deepcopy(model)
    clip = dict(clip_grad=dict(max_norm=max_norm)) if max_norm else {}
    runner, passes = record(tmp_path, model, batches=5, train_cfg=strategy_cfg(strategy, max_epochs=2 + group % 2),
                            optim_wrapper=dict(accumulative_counts=group, **clip))
    subnets = [[one.subnet for one in own] for own in passes_by_iteration(passes)]
    assert len(runner.optim_wrapper.states) == -(-len(subnets) // group)
    plain_training(expected, subnets, train_batches(5), group, max_norm)
    assert_same_state(model.state_dict(), expected.state_dict())


@pytest.mark.parametrize('group', [1, 2, 3])
def test_one_pass_of_the_largest_is_mmengines_own_loop(tmp_path, group):
    """Also in how accumulated gradients are scaled, and in what an unfinished group at the end gets."""
    states, scalars = [], []
    for train_cfg in (strategy_cfg(['max'], type='mmbignas.SandwichTrainLoop'), dict(type='EpochBasedTrainLoop')):
        model = ToyModel()
        runner = build_runner(tmp_path, model, batches=4, train_cfg=dict(**train_cfg, max_epochs=2),
                              optim_wrapper=dict(accumulative_counts=group, clip_grad=dict(max_norm=.5)))
        runner.train()
        states.append(model.state_dict())
        scalars.append({name: buffer.data[0].tolist() for name, buffer in runner.message_hub.log_scalars.items()})
    assert_same_state(*states)
    assert scalars[0].pop('train/max.loss') == scalars[0]['train/loss']
    assert {name.replace('max.', ''): values for name, values in scalars[0].items()} == scalars[1]


def test_losses_in_the_log(tmp_path):
    strategy = ['max', 'min', FIXED, 'random']
    runner, passes = record(tmp_path, train_cfg=strategy_cfg(strategy), optim_wrapper=dict(accumulative_counts=2))
    history = {name: buffer.data[0] for name, buffer in runner.message_hub.log_scalars.items()}
    entries = {'loss_cls', 'loss_norm', 'loss', 'accuracy'}
    assert set(history) == {'train/lr', 'train/loss'} | {
        f'train/{name}.{entry}' for name in ('max', 'min', 'fixed0', 'random0') for entry in entries}
    first = ToyModel()
    for iteration, batch in enumerate(train_batches()[:2]):  # both before the first step
        total = 0
        for own in passes_by_iteration(passes)[iteration]:
            _, losses = losses_of(first, batch, own.subnet)
            losses['loss'] = losses['loss_cls'] + losses['loss_norm']
            total += losses['loss'].item()
            for entry in entries:
                assert history[f'train/{own.name}.{entry}'][iteration] == pytest.approx(losses[entry].item(), rel=1e-6)
        assert history['train/loss'][iteration] == pytest.approx(total, rel=1e-6)


@pytest.mark.parametrize('group', [1, 2])
def test_a_batch_is_preprocessed_once(tmp_path, group):
    model = ToyModel()
    record(tmp_path, model, train_cfg=dict(max_epochs=2), optim_wrapper=dict(accumulative_counts=group))
    assert model.data_preprocessor.calls == 8


class EventHook(Hook):
    """Keeps the order of what is called, and looks at the state of the run."""

    def __init__(self):
        self.events = []

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.events.append(('before_train_iter', batch_idx))
        self.batch = data_batch

    def before_subnet_forward(self, runner, subnet_pass):
        assert Supernet(runner.model).current == subnet_pass.subnet
        assert runner.model.training
        self.events.append(('before_subnet_forward', subnet_pass.name, subnet_pass.iteration, subnet_pass.index))

    def after_subnet_forward(self, runner, subnet_pass, losses):
        assert Supernet(runner.model).current == subnet_pass.subnet
        assert set(losses) == {'loss_cls', 'loss_norm', 'accuracy'}
        assert all(value.requires_grad for name, value in losses.items() if name != 'accuracy')
        self.events.append(('after_subnet_forward', subnet_pass.name, subnet_pass.iteration, subnet_pass.index))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        assert data_batch is self.batch
        assert not any(value.requires_grad for value in outputs.values())
        self.events.append(('after_train_iter', batch_idx, outputs['loss'].item()))


def test_order_of_hook_points(tmp_path):
    hook, strategy = EventHook(), ['max', 'min', 'random']
    runner, _ = record(tmp_path, hooks=[hook], batches=2, train_cfg=strategy_cfg(strategy, max_epochs=2))
    totals, expected = runner.message_hub.log_scalars['train/loss'].data[0], []
    for iteration in range(4):
        expected.append(('before_train_iter', iteration % 2))
        for index, name in enumerate(['max', 'min', 'random0']):
            expected += [(f'{when}_subnet_forward', name, iteration, index) for when in ('before', 'after')]
        expected.append(('after_train_iter', iteration % 2, pytest.approx(totals[iteration])))
    assert hook.events == expected


class ExtraLossHook(Hook):
    """A pull of the head's weights to 1 in the smallest subnet's pass, and a figure that is no loss."""

    def after_subnet_forward(self, runner, subnet_pass, losses):
        if subnet_pass.name == 'min':
            losses['loss_extra'] = 3 * (runner.model.head.weight - 1).square().sum()
            losses['norm'] = runner.model.head.weight.detach().norm()


def test_losses_that_hooks_add_are_in_the_total(tmp_path):
    runner, passes = record(tmp_path, hooks=[ExtraLossHook()])
    steps, scalars = runner.optim_wrapper, runner.message_hub.log_scalars
    batch, own = train_batches()[0], passes_by_iteration(passes)[0]
    expected = add_gradients([gradients_of(model_at(steps.states[0]), batch, one.subnet) for one in own])
    weight = steps.states[0]['head.weight']
    expected['head.weight'] = expected['head.weight'] + 6 * (weight - 1)
    assert_gradients_close(steps.gradients[0], expected)
    plain = sum(losses_of(model_at(steps.states[0]), batch, one.subnet)[1][name].item()
                for one in own for name in ('loss_cls', 'loss_norm'))
    extra = 3 * (weight - 1).square().sum().item()
    assert scalars['train/min.loss_extra'].data[0][0] == pytest.approx(extra)
    assert scalars['train/min.norm'].data[0][0] == pytest.approx(weight.norm().item())
    assert scalars['train/loss'].data[0][0] == pytest.approx(plain + extra, rel=1e-5)
    assert 'train/max.loss_extra' not in scalars


def test_by_iteration_is_the_same_as_by_epoch(tmp_path):
    runners, recorded = [], []
    for train_cfg in (dict(max_epochs=1), dict(type='mmbignas.SandwichIterTrainLoop', max_iters=5, val_interval=5)):
        runner, passes = record(tmp_path, batches=5, train_cfg=train_cfg, val_cfg={},
                                optim_wrapper=dict(accumulative_counts=2))
        runners.append(runner)
        recorded.append(passes)
    by_epoch, by_iteration = runners
    assert_same_state(by_epoch.model.state_dict(), by_iteration.model.state_dict())
    assert recorded[0] == recorded[1]
    assert (by_iteration.iter, by_iteration.epoch) == (5, 0)
    losses = [runner.message_hub.log_scalars['train/loss'].data[0].tolist() for runner in runners]
    assert losses[0] == losses[1]


class ValRecorder(Hook):
    """At each validation: the iteration, and the training flag of the model after it."""

    def __init__(self):
        self.iterations, self.subnets, self.flags = [], [], []

    def before_val(self, runner):
        self.iterations.append(runner.iter)

    def before_subnet_eval(self, runner, subnet_eval):
        self.subnets.append((runner.iter, subnet_eval.name))

    def before_subnet_forward(self, runner, subnet_pass):
        self.flags.append(runner.model.training)


@pytest.mark.parametrize('train_cfg', [
    dict(max_epochs=3, val_interval=1),
    dict(type='mmbignas.SandwichIterTrainLoop', max_iters=12, val_interval=4),
])
@pytest.mark.parametrize('before', [False, True])
def test_validation_changes_nothing(tmp_path, train_cfg, before):
    """Neither before training nor during it, calibrated or not."""
    plain, passes = record(tmp_path, train_cfg=dict(train_cfg, val_interval=100))
    watch, calibration = ValRecorder(), BNCalibrationHook(12, dataloader(12))
    runner, own = record(tmp_path, hooks=[watch, calibration], train_cfg=dict(train_cfg, valid_before_train=before),
                         val_cfg=dict(calib_bn='both'))
    expected = [0, 4, 8, 12] if before else [4, 8, 12]
    assert watch.iterations == expected
    assert watch.subnets == [(iteration, name) for iteration in expected
                             for name in ('max', 'max_calib', 'min', 'min_calib')]
    assert all(watch.flags)
    assert own == passes
    assert_same_state(runner.model.state_dict(), plain.model.state_dict())


def test_valid_before_train_without_validation(tmp_path):
    record(tmp_path, train_cfg=dict(valid_before_train=True))


class PositionalModel(BaseModel):
    """A model as in MMEngine's tutorial: its own argument names, and batches that are lists."""

    def __init__(self):
        super().__init__()
        self.net = ToyModel()

    def forward(self, images, labels, mode='tensor'):
        return self.net(images * 2 - .5, labels, mode)


def test_batches_that_are_lists(tmp_path):
    model = PositionalModel()
    expected, supernet_model = copy.deepcopy(model.net), model
    loader = dataloader(24)
    loader['collate_fn'] = lambda items: [torch.stack([item['inputs'] for item in items]),
                                          torch.stack([item['data_samples'] for item in items])]
    runner = build_runner(tmp_path, supernet_model, hooks=[PassRecorder()], train_dataloader=loader)
    runner.train()
    passes = next(hook for hook in runner.hooks if isinstance(hook, PassRecorder)).passes
    subnets = [[dict(backbone=one.subnet['net.backbone']) for one in own] for own in passes_by_iteration(passes)]
    plain_training(expected, subnets, train_batches())
    assert_same_state(model.net.state_dict(), expected.state_dict())


class DtypeHook(Hook):
    """Computes in ``after_subnet_forward``, as distillation does, and keeps the type of the result."""

    def __init__(self):
        self.dtypes = set()

    def after_subnet_forward(self, runner, subnet_pass, losses):
        self.dtypes.add(F.linear(torch.ones(2, 2), torch.ones(2, 2)).dtype)


def test_mixed_precision_holds_in_every_pass_and_in_the_hooks(tmp_path):
    seen, hook = [], DtypeHook()
    model = ToyModel()
    model.head.register_forward_hook(lambda module, args, output: module.training and seen.append(output.dtype))
    runner = build_runner(tmp_path, model, hooks=[hook], optim_wrapper=dict(type='mmbignas.BFloat16OptimWrapper'))
    runner.train()
    assert seen == [torch.bfloat16] * 17  # one of a trial before
    assert hook.dtypes == {torch.bfloat16}
    assert all(parameter.dtype == torch.float for parameter in model.parameters())


class TypeHook(Hook):
    """The type of each loss of a pass, with those that other hooks have added."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.types = {}

    def after_subnet_forward(self, runner, subnet_pass, losses):
        self.types[subnet_pass.name] = {name: value.dtype for name, value in losses.items()}


@pytest.mark.parametrize('loss', ['DenseKLLoss', 'SoftLabelLoss', 'FeatureMSELoss', 'AlphaDivergenceLoss'])
def test_training_in_bfloat16(tmp_path, loss):
    """It goes the way of training in float32; weights, momenta and losses of distillation are in float32."""
    results = []
    for kind in ('OptimWrapper', 'mmbignas.BFloat16OptimWrapper'):
        job = dict(mimic_name='head', loss=dict(type=f'mmbignas.{loss}'))
        model, types = ToyModel(), TypeHook()
        runner = build_runner(tmp_path, model, hooks=[DistillHook(dict(head=job)), types], train_cfg=dict(max_epochs=5),
                              optim_wrapper=dict(type=kind, clip_grad=dict(max_norm=5.)))
        runner.train()
        assert types.types['min']['loss_distill_head'] == types.types['min']['loss_cls'] == torch.float
        for parameter in model.parameters():
            assert parameter.dtype == torch.float
        for state in runner.optim_wrapper.optimizer.state.values():
            assert state['momentum_buffer'].dtype == torch.float
        results.append(runner.message_hub.log_scalars['train/loss'].data[0])
    exact, rounded = map(torch.as_tensor, results)
    assert not torch.equal(exact, rounded)
    torch.testing.assert_close(exact, rounded, rtol=.03, atol=0)


class ScalingOptimWrapper(OptimWrapper):
    """MMEngine's ``AmpOptimWrapper`` as far as its scaler goes, on the CPU; counts what the scaler does."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.scaler = torch.amp.GradScaler('cpu', init_scale=1024., growth_interval=10000)
        self.steps = 0

    def backward(self, loss, **kwargs):
        self.scaler.scale(loss).backward(**kwargs)
        self._inner_count += 1

    def step(self, **kwargs):
        self.steps += 1
        self.scaler.unscale_(self.optimizer)
        if self.clip_grad_kwargs:
            self._clip_grad()
        self.scaler.step(self.optimizer, **kwargs)
        self.scaler.update()


class InfiniteLossHook(Hook):
    """One pass of iteration 1 has an infinite gradient."""

    def after_subnet_forward(self, runner, subnet_pass, losses):
        if (subnet_pass.iteration, subnet_pass.name) == (1, 'min'):
            losses['loss_cls'] = losses['loss_cls'] * float('inf')


@pytest.mark.parametrize('hooks', [[], [InfiniteLossHook()]])
def test_a_scaler_sees_one_step_an_iteration(tmp_path, hooks):
    """Loss scaling changes nothing; an iteration with one pass that overflows is left out as a whole."""
    model, passes = ToyModel(), PassRecorder()
    expected = copy.deepcopy(model)
    runner = build_runner(tmp_path, model, hooks=[passes, *hooks],
                          optim_wrapper=dict(type=ScalingOptimWrapper, clip_grad=dict(max_norm=.05)))
    runner.train()
    assert runner.optim_wrapper.steps == 4
    assert runner.optim_wrapper.scaler.get_scale() == (512 if hooks else 1024)
    subnets = [[one.subnet for one in own] for own in passes_by_iteration(passes.passes)]
    batches = train_batches()
    if hooks:
        subnets, batches = [subnets[0], *subnets[2:]], [batches[0], *batches[2:]]
    plain_training(expected, subnets, batches, max_norm=.05)
    for ours, theirs in zip(model.parameters(), expected.parameters()):
        torch.testing.assert_close(ours, theirs)


def test_several_optimizers_are_refused(tmp_path):
    model = ToyModel()
    wrappers = {name: OptimWrapper(torch.optim.SGD(part.parameters(), lr=.1)) for name, part in model.named_children()
                if name in ('backbone', 'head')}
    runner = build_runner(tmp_path, model)
    runner.optim_wrapper = OptimWrapperDict(**wrappers)
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError, match='optim_wrapper must be an OptimWrapper, .* got .OptimWrapperDict'):
        runner.train()
    assert_same_state(before, model.state_dict())


class PlainModel(ToyModel):
    """Nothing to search."""

    def __init__(self):
        super().__init__()
        self.backbone = nn.Conv2d(3, 8, 3)


@pytest.mark.parametrize('cfgs', [dict(), dict(val_cfg={})])
def test_a_model_without_a_space_is_refused(tmp_path, cfgs):
    with pytest.raises(ConfigError, match='model: PlainModel has no searchable module') as error:
        build_runner(tmp_path, PlainModel(), **cfgs).train()
    assert '\n' not in str(error.value)


def test_a_bad_rule_is_refused_before_data_are_loaded(tmp_path):
    loader = dataloader(12)
    loader['dataset'] = dict(type='NoSuchDataset')
    runner = build_runner(tmp_path, train_dataloader=loader, train_cfg=dict(sample_subnet_num=3))
    with pytest.raises(ConfigError, match='sample_subnet_num must be 4, .* got 3'):
        runner.train()
