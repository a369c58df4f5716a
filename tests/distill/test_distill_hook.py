"""In-place distillation against losses and gradients computed apart."""
import copy
from types import SimpleNamespace

import pytest
import torch
from mmengine.hooks import Hook

from mmbignas.distill import DenseKLLoss, DistillHook, FeatureMSELoss
from mmbignas.errors import ConfigError
from mmbignas.supernet import Supernet
from mmbignas.train import ValidateFirstHook
from mmbignas.train.sandwich_rule import SandwichRule
from mmbignas.train.subnet_pass import SubnetPass
from tests.toy import (
    PassRecorder,
    RecordingOptimWrapper,
    ToyMetric,
    ToyModel,
    add_gradients,
    assert_gradients_close,
    build_runner,
    train_batches,
)

CONV = 'backbone.blocks.0.0'
NORM = 'backbone.blocks.0.1'
JOBS = dict(
    conv=dict(mimic_name=CONV, loss=dict(type='mmbignas.FeatureMSELoss'), loss_weight=2.5),
    score=dict(mimic_name='head', loss=dict(type='mmbignas.DenseKLLoss'), warm_up_iters=3, loss_weight=.7),
    both=dict(mimic_name=['head', NORM], loss=dict(type='mmbignas.FeatureMSELoss'), warm_up_iters=10),
)
STRATEGY = ['max', 'min', 'random', 'random']


def train(tmp_path, jobs=None, strategy=STRATEGY, hooks=(), model=None, **kwargs):
    model, passes, hook = model or ToyModel(), PassRecorder(), DistillHook(JOBS if jobs is None else jobs)
    train_cfg = dict(sample_subnet_num=len(strategy), sample_strategy=strategy, **kwargs.pop('train_cfg', {}))
    runner = build_runner(tmp_path, model, hooks=[passes, hook, *hooks], train_cfg=train_cfg,
                          optim_wrapper=dict(type=RecordingOptimWrapper), **kwargs)
    runner.train()
    return runner, passes.passes


def outputs_of(model, batch, subnet, names):
    """Losses and the outputs of the named modules, by hooks of their own."""
    Supernet(model.train()).apply(subnet)
    outputs, handles = {}, []
    for name in names:
        handles.append(model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: outputs.update({name: output})))
    losses = model(**model.data_preprocessor(batch, True), mode='loss')
    for handle in handles:
        handle.remove()
    return losses, outputs


def common(x, y):
    width = min(x.shape[1], y.shape[1])
    return x[:, :width], y[:, :width]


def expected_distillation(student, teacher, iteration):
    """The entries of :data:`JOBS`, from their definitions."""
    conv = 2.5 * (common(student[CONV], teacher[CONV])[0] - common(student[CONV], teacher[CONV])[1]).square().mean()
    p, q = (torch.distributions.Bernoulli(logits=own['head']) for own in (teacher, student))
    score = .7 * min(1, iteration / 3) * torch.distributions.kl_divergence(p, q).sum() / p.probs.sum().clamp(min=1)
    head = (student['head'] - teacher['head']).square().mean()
    x, y = common(student[NORM], teacher[NORM])
    both = min(1, iteration / 10) * (head + (x - y).square().mean()) / 2
    return dict(loss_distill_conv=conv, loss_distill_score=score, loss_distill_both=both)


def expected_pass(model, batch, own, teacher):
    """Losses and gradients of one pass, in float64."""
    model.zero_grad()
    losses, outputs = outputs_of(model, batch, own.subnet, [CONV, NORM, 'head'])
    if not own.is_max:
        losses.update(expected_distillation(outputs, teacher, own.iteration))
    sum(value for name, value in losses.items() if 'loss' in name).backward()
    gradients = {name: None if parameter.grad is None else parameter.grad.float()
                 for name, parameter in model.named_parameters()}
    return losses, outputs, gradients


@pytest.mark.parametrize('seed', range(3))
@pytest.mark.parametrize('strategy', [STRATEGY, ['max', 'min'], ['max', 'random', 'max', 'middle', 'random']])
def test_losses_and_gradients(tmp_path, strategy, seed):
    runner, passes = train(tmp_path, strategy=strategy, seed=seed, model=ToyModel(seed=seed))
    history = {name: iter(buffer.data[0]) for name, buffer in runner.message_hub.log_scalars.items()}
    for iteration, batch in enumerate(train_batches()):
        model = ToyModel()
        model.load_state_dict(runner.optim_wrapper.states[iteration])
        model, batch = model.double(), dict(batch, inputs=batch['inputs'].double())
        teacher, total, terms = None, 0, []
        for own in passes[iteration * len(strategy):(iteration + 1) * len(strategy)]:
            losses, outputs, gradients = expected_pass(model, batch, own, teacher)
            losses = {name: value for name, value in losses.items() if 'loss' in name}
            if teacher is None:
                teacher = {name: output.detach() for name, output in outputs.items()}
            terms.append(gradients)
            total += sum(value.item() for value in losses.values())
            for name, value in losses.items():
                logged = next(history[f'train/{own.name}.{name}'])
                assert logged == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
        assert_gradients_close(runner.optim_wrapper.gradients[iteration], add_gradients(terms))
        assert next(history['train/loss']) == pytest.approx(total, rel=1e-5)
    assert all(next(values, None) is None for name, values in history.items() if '.loss_' in name)


def test_the_largest_is_never_a_student(tmp_path):
    space = Supernet(ToyModel()).space
    strategy = ['max', space.max().to_dict(), 'min', 'max', 'random']
    runner, passes = train(tmp_path, strategy=strategy)
    students = {own.name for own in passes if own.subnet != space.max()}
    assert students == {'min', 'random0'}
    logged = {name for name in runner.message_hub.log_scalars if 'distill' in name}
    assert logged == {f'train/{name}.loss_distill_{job}' for name in students for job in JOBS}


@pytest.mark.parametrize(('second', 'students'), [(True, 0), (False, 1)])
def test_a_random_draw_that_is_the_largest_is_no_student(second, students):
    hook = DistillHook(JOBS)
    model = ToyModel()
    supernet = Supernet(model)
    subnets = [supernet.space.max(), supernet.space.max() if second else supernet.space.min()]
    runner = build_runner_stub(model)
    hook.before_train(runner)
    for index, subnet in enumerate(subnets):
        own = SubnetPass(4, index, 'random0' if index else 'max', subnet, subnet == supernet.space.max())
        supernet.apply(subnet)
        hook.before_subnet_forward(runner, own)
        losses = model(**model.data_preprocessor(train_batches()[0], True), mode='loss')
        hook.after_subnet_forward(runner, own, losses)
    assert len([name for name in losses if 'distill' in name]) == students * len(JOBS)


def build_runner_stub(model):
    """A runner that is about to train ``model`` by the usual rule."""
    rule = SandwichRule(Supernet(model).space, 2, ['max', 'random'])
    return SimpleNamespace(model=model, train_loop=SimpleNamespace(rule=rule, data=None))


def test_outputs_of_another_iteration_are_refused():
    model, hook = ToyModel(), DistillHook(JOBS)
    runner, supernet = build_runner_stub(model), Supernet(model)
    hook.before_train(runner)
    for own, subnet in ((SubnetPass(4, 0, 'max', supernet.space.max(), True), supernet.space.max()),
                        (SubnetPass(5, 0, 'min', supernet.space.min(), False), supernet.space.min())):
        supernet.apply(subnet)
        hook.before_subnet_forward(runner, own)
        losses = model(**model.data_preprocessor(train_batches()[0], True), mode='loss')
        if own.is_max:
            hook.after_subnet_forward(runner, own, losses)
        else:
            with pytest.raises(RuntimeError, match='iteration 4, but min is trained in iteration 5'):
                hook.after_subnet_forward(runner, own, losses)


class Watch(Hook):
    """What the distillation hook holds during validation."""

    priority = 'VERY_LOW'

    def __init__(self):
        self.evaluations, self.iterations = 0, 0

    def distill(self, runner):
        return next(hook for hook in runner.hooks if isinstance(hook, DistillHook))

    def after_val_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.evaluations += 1
        assert self.distill(runner)._recorder.stop() == {}

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        self.iterations += 1
        assert self.distill(runner)._in_place._outputs == {}


def test_nothing_is_recorded_in_validation_and_nothing_stays(tmp_path):
    watch, model = Watch(), ToyModel()
    train(tmp_path, hooks=[watch], model=model, val_cfg={}, train_cfg=dict(max_epochs=2, valid_before_train=True))
    assert (watch.evaluations, watch.iterations) == (3 * 2 * 3, 8)
    assert all(not module._forward_hooks for module in model.modules())


@pytest.mark.parametrize(('train_cfg', 'parts'), [
    (dict(sample_subnet_num=1, sample_strategy=['max', 'min']),
     ['train_cfg.sample_strategy must be a list of several with max first', "got ['max']"]),
    (dict(sample_subnet_num=3, sample_strategy=['min', 'max', 'random']), ['max first', "['min', 'max', 'random0']"]),
    (dict(type='EpochBasedTrainLoop'), ['train_cfg.type must be SandwichTrainLoop', "'EpochBasedTrainLoop'"]),
])
def test_schedules_without_a_teacher_in_the_iteration_are_refused(tmp_path, train_cfg, parts):
    model = ToyModel()
    before = copy.deepcopy(model.state_dict())
    runner = build_runner(tmp_path, model, hooks=[DistillHook(JOBS)], train_cfg=train_cfg)
    with pytest.raises(ConfigError) as error:
        runner.train()
    assert '\n' not in str(error.value)
    for part in parts:
        assert part in str(error.value)
    assert runner.iter == 0
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(not module._forward_hooks for module in model.modules())


def test_an_unknown_module_is_refused_before_training(tmp_path):
    jobs = dict(a=dict(mimic_name='backbone.blocks.7', loss=dict(type='mmbignas.FeatureMSELoss')))
    runner = build_runner(tmp_path, hooks=[DistillHook(jobs)])
    with pytest.raises(ConfigError, match=r'DistillHook.jobs.a.mimic_name: the model has no module '
                                          r'.backbone.blocks.7.; backbone.blocks has: 0, 1, 2') as error:
        runner.train()
    assert '\n' not in str(error.value)
    assert runner.iter == 0


LOSS = dict(type='mmbignas.FeatureMSELoss')


@pytest.mark.parametrize(('jobs', 'parts'), [
    ({}, ['DistillHook.jobs', 'dict of jobs', '{}']),
    (None, ['DistillHook.jobs', 'None']),
    (dict(a=dict(loss=LOSS)), ['DistillHook.jobs.a must be a dict', "no key 'mimic_name'"]),
    (dict(a=dict(mimic_name='head')), ['DistillHook.jobs.a must be a dict', "no key 'loss'"]),
    (dict(a=dict(mimic_name='head', loss=LOSS, weight=1)), ['DistillHook.jobs.a', 'loss_weight', "'weight'"]),
    (dict(a='head'), ['DistillHook.jobs.a', "'head'"]),
    (dict(a=dict(mimic_name='head', loss=LOSS, loss_weight=-1)), ['jobs.a.loss_weight must be a number >= 0, got -1']),
    (dict(a=dict(mimic_name='head', loss=LOSS, warm_up_iters='5')), ['jobs.a.warm_up_iters must be a number', "'5'"]),
    (dict(a=dict(mimic_name=[], loss=LOSS)), ['jobs.a.mimic_name', '[]']),
    (dict(a=dict(mimic_name=['head', 3], loss=LOSS)), ['jobs.a.mimic_name', '3']),
    ({'a/b': dict(mimic_name='head', loss=LOSS)}, ['DistillHook.jobs', "'a/b'", "without '/'"]),
    (dict(a=dict(mimic_name='head', loss=dict(type='mmbignas.DenseGIoULoss'))),
     ['jobs.a.mimic_name', "['head']", 'must be 2 modules with DenseGIoULoss']),
    (dict(a=dict(mimic_name=['head', 'head'], loss=dict(type='mmbignas.GuidedSoftLabelLoss'))),
     ['jobs.a.mimic_name', "['head', 'head']", 'must be 1 module with']),
    (dict(a=dict(mimic_name='head', loss=LOSS, teacher='top')),
     ['jobs.a.teacher must be one of max, a list, or a dict', "'top'"]),
    (dict(a=dict(mimic_name='head', loss=LOSS, teacher=[])), ['jobs.a.teacher', '[]']),
    (dict(a=dict(mimic_name='head', loss=LOSS, teacher=dict(max=dict(mimic_name='head')))),
     ['jobs.a.teacher.max must be', 'loss_weight', "key 'mimic_name'"]),
    (dict(a=dict(mimic_name='head', loss=LOSS, teacher=dict(max=dict(loss_weight=-2)))),
     ['jobs.a.teacher.max.loss_weight', '-2', '>= 0']),
    (dict(a=dict(mimic_name='head', loss=LOSS, begin=-1)), ['jobs.a.begin must be an integer >= 0, got -1']),
    (dict(a=dict(mimic_name='head', loss=LOSS, begin=5, end=5)),
     ['jobs.a.end must be an integer >= 6, or None, got 5']),
    (dict(a=dict(mimic_name='head', loss=LOSS, widths='any')),
     ['jobs.a.widths', "'any'", 'equal, first_channels, adapter']),
    (dict(a=dict(mimic_name='head', loss=LOSS, replaces=[])), ['jobs.a.replaces', '[]', "model's losses"]),
    (dict(a=dict(mimic_name='head', loss=LOSS, replaces=['loss', 2])), ['jobs.a.replaces', "['loss', 2]"]),
    (dict(a=dict(mimic_name='head', loss=LOSS, replaces='loss_cls', loss_weight=0)),
     ['jobs.a.loss_weight must be a number > 0 with replaces, got 0']),
    (dict(a=dict(mimic_name='head', loss=LOSS, loss_weight=float('nan'))), ['jobs.a.loss_weight', 'nan', '>= 0']),
    (dict(a=dict(mimic_name='head', loss=LOSS, replaces='loss_cls', warm_up_iters=3)),
     ['jobs.a.warm_up_iters must be 0 with replaces', 'got 3']),
])
def test_bad_jobs(jobs, parts):
    with pytest.raises(ConfigError) as error:
        DistillHook(jobs)
    assert '\n' not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def test_a_module_that_is_not_called_in_a_pass_is_named(tmp_path):
    """A block that the student's depth leaves out has no output to compare."""
    jobs = dict(a=dict(mimic_name='backbone.blocks.2.0', loss=LOSS))
    with pytest.raises(ConfigError, match=r'jobs\.a\.mimic_name must be .* every .*blocks\.2\.0. has no .* of min'):
        train(tmp_path, jobs, strategy=['max', 'min'])


def test_loss_classes_are_built():
    hook = DistillHook(JOBS)
    assert [type(job.loss) for job in hook.jobs.values()] == [FeatureMSELoss, DenseKLLoss, FeatureMSELoss]


SOFT = dict(type='mmbignas.SoftLabelLoss')


class OneLoss(ToyModel):
    """A classifier as MMPretrain's: all that it returns is ``loss``."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        result = super().forward(inputs, data_samples, mode)
        return dict(loss=result['loss_cls']) if mode == 'loss' else result


class ListedLosses(ToyModel):
    """A head that returns a list for each loss, as dense heads do: one entry a level."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        result = super().forward(inputs, data_samples, mode)
        if mode != 'loss':
            return result
        listed = {name: [value * share for share in (.25, .75)] for name, value in result.items() if 'loss' in name}
        return dict(result, **listed)


def total_of(losses):
    """The sum of all entries that MMEngine trains on, and all entries as numbers."""
    summed = {name: sum(value) if isinstance(value, list) else value for name, value in losses.items()}
    return sum(value for name, value in summed.items() if 'loss' in name), summed


def expected_with_soft_labels(model, batch, own, taught, replaced):
    """Losses, logits and gradients of one pass, where students lose some of their own losses."""
    model.zero_grad()
    losses, outputs = outputs_of(model, batch, own.subnet, ['head'])
    logged = {}
    if not own.is_max:
        for name in replaced:
            logged[name.replace('loss', 'hard_label')] = total_of(dict(loss=losses.pop(name)))[0]
        p, log_q = taught.softmax(1), outputs['head'].log_softmax(1)
        losses['loss_distill_soft'] = .5 * (p * (p.log() - log_q)).sum(1).mean()
    total, summed = total_of(losses)
    total.backward()
    gradients = {name: None if parameter.grad is None else parameter.grad.float()
                 for name, parameter in model.named_parameters()}
    return {**summed, **logged}, outputs['head'].detach(), gradients


@pytest.mark.parametrize('seed', range(2))
@pytest.mark.parametrize(('kind', 'replaces', 'hard'), [
    (ToyModel, 'loss_cls', {'hard_label_cls'}),
    (ToyModel, ['loss_norm', 'loss_cls'], {'hard_label_cls', 'hard_label_norm'}),
    (OneLoss, 'loss', {'hard_label'}), (ListedLosses, ['loss_cls'], {'hard_label_cls'}),
])
def test_students_are_not_trained_on_what_is_replaced(tmp_path, kind, replaces, hard, seed):
    jobs = dict(soft=dict(mimic_name='head', loss=SOFT, loss_weight=.5, replaces=replaces))
    strategy = ['max', 'min', 'random', 'max', 'random']
    runner, passes = train(tmp_path, jobs, strategy, model=kind(seed=seed), seed=seed)
    assert runner.iter == 4
    for iteration, batch in enumerate(train_batches()):
        model, taught, terms, total = kind(), None, [], 0.
        model.load_state_dict(runner.optim_wrapper.states[iteration])
        model.double()
        batch['inputs'] = batch['inputs'].double()
        for own in passes[5 * iteration:5 * iteration + 5]:
            losses, logits, gradients = expected_with_soft_labels(
                model, batch, own, taught, [replaces] if isinstance(replaces, str) else replaces)
            taught = logits if taught is None else taught
            terms.append(gradients)
            trained = sum(value.item() for name, value in losses.items() if 'loss' in name)
            total += trained
            if 'loss' not in losses:  # else the sum has the name in the log, as in MMEngine
                losses['loss'] = torch.tensor(trained)
            if own.index in (1, 2, 4):
                assert {name for name in losses if 'hard' in name} == hard
                for name, value in losses.items():
                    logged = runner.message_hub.get_scalar(f'train/{own.name}.{name}').data[0][iteration]
                    assert logged == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
        assert_gradients_close(runner.optim_wrapper.gradients[iteration], add_gradients(terms))
        assert runner.message_hub.get_scalar('train/loss').data[0][iteration] == pytest.approx(total, rel=1e-5)
    logged = {name.split('.')[1] for name in runner.message_hub.log_scalars if name.startswith('train/max')}
    assert not any('hard' in name or 'distill' in name for name in logged)


def test_nothing_is_replaced_unless_named(tmp_path):
    jobs = dict(soft=dict(mimic_name='head', loss=SOFT))
    runner, _ = train(tmp_path, jobs, ['max', 'min'])
    names = {*runner.message_hub.log_scalars}
    assert {'train/min.loss_cls', 'train/min.loss_norm', 'train/min.loss_distill_soft'} <= names
    assert not any('hard' in name for name in names)


@pytest.mark.parametrize('name', ['loss_clss', 'accuracy', 'loss'])
def test_a_loss_that_is_not_there_cannot_be_replaced(tmp_path, name):
    """Before the validation that comes first, and before anything else is computed or changed."""
    jobs = dict(soft=dict(mimic_name='head', loss=SOFT, replaces=['loss_cls', name]))
    recorder, metric = PassRecorder(), ToyMetric()
    runner = build_runner(tmp_path, hooks=[recorder, ValidateFirstHook(), DistillHook(jobs)], val_cfg={}, metric=metric)
    before, state = copy.deepcopy(runner.model.state_dict()), torch.get_rng_state()
    metric.process = None
    with pytest.raises(ConfigError) as error:
        runner.train()
    assert str(error.value) == ("DistillHook.jobs.soft.replaces must be one of the model's losses, loss_cls, "
                                f'loss_norm, got {name!r}')
    assert not recorder.passes and runner.iter == 0
    assert all(torch.equal(value, before[name]) for name, value in runner.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), state)
