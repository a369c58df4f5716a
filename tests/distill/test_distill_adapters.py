"""Adapters between widths: trained with the model, of which they are no part."""
import copy
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch.nn import functional as F

from mmbignas.distill import DistillHook
from mmbignas.errors import ConfigError
from mmbignas.supernet import Supernet
from mmbignas.train import ResumeHook, SkipNonFiniteHook
from tests.distill.test_distill_teacher import PlainTeacher
from tests.distributed import run_processes
from tests.toy import (
    PassRecorder,
    RecordingOptimWrapper,
    ToyModel,
    add_gradients,
    assert_gradients_close,
    build_runner,
    dataloader,
    train_batches,
)

CONV = 'backbone.blocks.0.0'
MSE = dict(type='mmbignas.FeatureMSELoss')
STRATEGY = ['max', 'min', 'random', 'random']
JOBS = dict(conv=dict(mimic_name=CONV, teacher_mimic_name='body.0', loss=MSE, loss_weight=2., widths='adapter'),
            head=dict(mimic_name='head', teacher_mimic_name='top', loss=MSE, widths='adapter'))
IN_PLACE = dict(conv=dict(mimic_name=CONV, loss=MSE, widths='adapter'))


class Recorder(RecordingOptimWrapper):
    """Keeps the adapters too, and the values and gradients that they have before each step."""

    def __init__(self, *args, **kwargs):
        super().__init__(*args, **kwargs)
        self.adapters, self.values, self.adapter_gradients = None, [], []

    def step(self, **kwargs):
        if self.adapters is not None:
            self.values.append({name: own.detach().clone() for name, own in self.adapters.named_parameters()})
            self.adapter_gradients.append({name: own.grad.clone() for name, own in self.adapters.named_parameters()})
        super().step(**kwargs)


class TellAdapters(Hook):
    priority = 'VERY_LOW'

    def before_train(self, runner):
        [hook] = [hook for hook in runner.hooks if isinstance(hook, DistillHook)]
        runner.optim_wrapper.adapters = hook._adapters.adapters


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    torch.manual_seed(7)
    model = PlainTeacher(12)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict()), path)
    return dict(config=dict(type=PlainTeacher, width=12), checkpoint=str(path)), model.eval()


def train(folder, jobs=JOBS, teacher_cfg=None, hooks=(), model=None, wrapper=None, **kwargs):
    passes = PassRecorder()
    hooks = [passes, DistillHook(jobs, teacher_cfg), TellAdapters(), *hooks]
    runner = build_runner(folder, model or ToyModel(), hooks=hooks, optim_wrapper={'type': Recorder, **(wrapper or {})},
                          **{'train_cfg': dict(sample_subnet_num=4, sample_strategy=STRATEGY), **kwargs})
    runner.train()
    return runner, passes.passes


def seen_by(model, data, names, mode):
    """What modules put out, and what the model returns."""
    outputs = {}
    handles = [model.get_submodule(name).register_forward_hook(
        lambda module, args, output, name=name: outputs.update({name: output})) for name in names]
    result = model(**data, mode=mode)
    for handle in handles:
        handle.remove()
    return result, outputs


def mapped(adapters, job, x, y):
    """The student's output mapped to the teacher's width, by plain functions."""
    [(weight, bias)] = [(value, adapters[name[:-6] + 'bias']) for name, value in adapters.items()
                        if name.startswith(f'{job}_adapters.') and name.endswith('weight')]
    assert len(weight) == y.shape[1]
    weight = weight[:, :x.shape[1]]
    return F.linear(x, weight, bias) if x.dim() == 2 else F.conv2d(x, weight, bias)


def expected_pass(state, adapters, batch, own, teacher, taught):
    """The gradients of a pass, in float64, for the model and the adapters; and its outputs."""
    model = ToyModel()
    model.load_state_dict(state)
    Supernet(model).apply(own.subnet)
    data = model.double().train().data_preprocessor(dict(batch, inputs=batch['inputs'].double()), True)
    adapters = {name: value.double().requires_grad_() for name, value in adapters.items()}
    losses, outputs = seen_by(model, data, [CONV, 'head'], 'loss')
    total = losses['loss_cls'] + losses['loss_norm']
    if teacher is not None:
        with torch.no_grad():
            theirs = seen_by(copy.deepcopy(teacher).double(), data, ['body.0', 'top'], 'tensor')[1]
        for job, ours, other, weight in (('conv', CONV, 'body.0', 2), ('head', 'head', 'top', 1)):
            difference = mapped(adapters, job, outputs[ours], theirs[other]) - theirs[other]
            total = total + weight * difference.square().mean()
    elif taught is not None and not own.is_max:
        total = total + (mapped(adapters, 'conv', outputs[CONV], taught) - taught).square().mean()
    total.backward()
    gradients = {name: value.grad for name, value in [*model.named_parameters(), *adapters.items()]}
    return {name: None if own is None else own.float() for name, own in gradients.items()}, outputs[CONV].detach()


def assert_as_expected(runner, passes, teacher, batches):
    wrapper = runner.optim_wrapper
    assert len(wrapper.values) == 4
    for iteration, batch in enumerate(batches):
        taught, terms = None, []
        for own in passes[4 * iteration:4 * iteration + 4]:
            gradients, output = expected_pass(wrapper.states[iteration], wrapper.values[iteration], batch, own, teacher,
                                              taught)
            taught = output if taught is None else taught
            terms.append(gradients)
        assert_gradients_close({**wrapper.gradients[iteration], **wrapper.adapter_gradients[iteration]},
                               add_gradients(terms))


def test_gradients_with_another_network(tmp_path, teacher):
    assert_as_expected(*train(tmp_path, teacher_cfg=teacher[0]), teacher[1], train_batches())


@pytest.mark.parametrize('seed', range(3))
def test_gradients_in_place(tmp_path, seed):
    assert_as_expected(*train(tmp_path, IN_PLACE, seed=seed, model=ToyModel(seed=seed)), None, train_batches())


@pytest.mark.parametrize('wrapper', [
    dict(), dict(optimizer=dict(type='AdamW', lr=.01, weight_decay=.1), paramwise_cfg=dict(
        custom_keys=dict(backbone=dict(lr_mult=.1), head=dict(decay_mult=0.))))])
def test_trained_by_the_runs_optimizer_and_schedule(tmp_path, teacher, wrapper):
    runner, _ = train(tmp_path, teacher_cfg=teacher[0], wrapper=wrapper, param_scheduler=[
        dict(type='LinearLR', start_factor=.5, by_epoch=False, begin=0, end=2)])
    adapters = list(runner.optim_wrapper.adapters.parameters())
    assert len(adapters) == 4
    groups = [group for group in runner.optim_wrapper.param_groups if any(
        own is parameter for own in adapters for parameter in group['params'])]
    [group] = groups
    assert all(any(own is parameter for parameter in group['params']) for own in adapters)
    rates = [own['initial_lr'] for own in runner.optim_wrapper.param_groups]
    assert group['initial_lr'] == max(rates) and group['weight_decay'] == runner.optim_wrapper.defaults['weight_decay']
    first = runner.optim_wrapper.values[0]
    assert all(not torch.equal(first[name], own) for name, own in runner.optim_wrapper.adapters.named_parameters())


def test_no_part_of_the_model(tmp_path, teacher):
    model = ToyModel()
    train(tmp_path, teacher_cfg=teacher[0], model=model, default_hooks=dict(
        checkpoint=dict(type='CheckpointHook', interval=1)))
    assert model.state_dict().keys() == ToyModel().state_dict().keys()
    saved = torch.load(tmp_path / 'epoch_1.pth')
    assert saved['state_dict'].keys() == ToyModel().state_dict().keys()
    assert {name.split('.')[0] for name in saved['distill_adapters']} == {'conv_adapters', 'head_adapters'}


@pytest.mark.parametrize('jobs', [JOBS, IN_PLACE])
def test_resuming(tmp_path, teacher, jobs):
    own = teacher[0] if jobs is JOBS else None
    arguments = dict(train_cfg=dict(max_epochs=3), batches=2, wrapper=dict(optimizer=dict(type='AdamW', lr=.01)),
                     default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)))
    whole, _ = train(tmp_path / 'whole', jobs, own, **arguments)
    resumed, _ = train(tmp_path / 'resumed', jobs, own, resume=True, load_from=str(tmp_path / 'whole/epoch_1.pth'),
                       **arguments)
    for ours, theirs in ((whole.model, resumed.model), (whole.optim_wrapper.adapters, resumed.optim_wrapper.adapters)):
        for name, value in ours.state_dict().items():
            assert torch.equal(value, theirs.state_dict()[name]), name
    with pytest.raises(ConfigError, match=r'DistillHook.jobs must be those .* adapters \[.*conv.*\], got'):
        wide = dict(extra=dict(IN_PLACE['conv'], mimic_name='head', teacher='max'))
        train(tmp_path / 'other', {**wide, **jobs}, own, resume=True, load_from=str(tmp_path / 'whole/epoch_1.pth'),
              **arguments)


def test_the_weights_of_a_checkpoint_go_on_without_its_adapters(tmp_path, teacher):
    """``load_from`` begins anew: other jobs, other teachers."""
    train(tmp_path / 'a', teacher_cfg=teacher[0],
          default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)))
    runner, _ = train(tmp_path / 'b', IN_PLACE, load_from=str(tmp_path / 'a/epoch_1.pth'))
    assert runner.iter == 4


def test_creating_them_draws_no_random_numbers(tmp_path, teacher):
    class Draw(Hook):
        priority = 'LOWEST'

        def before_train(self, runner):
            draws.append(torch.rand(3))

    draws = []
    for hooks in ([Draw()], [DistillHook(JOBS, teacher[0]), Draw()]):
        model = ToyModel()
        build_runner(tmp_path, model, hooks=hooks).train()
    assert torch.equal(*draws)


def test_names_that_modules_have_already(tmp_path, teacher):
    jobs = dict.fromkeys(('type', 'keys', 'layer.1'), IN_PLACE['conv'])
    runner, _ = train(tmp_path, jobs)
    assert len(list(runner.optim_wrapper.adapters.parameters())) == 6


@pytest.mark.parametrize(('job', 'parts'), [
    (dict(mimic_name='backbone', teacher_mimic_name='top'), ['jobs.a.mimic_name', '(2, 8, 6, 6)', '(2, 5)', 'C alone']),
    (dict(mimic_name='spare', teacher_mimic_name='top'), ['jobs.a.mimic_name', "'spare'", 'no output']),
    (dict(mimic_name='head', teacher_mimic_name='data_preprocessor'),
     ['jobs.a.teacher_mimic_name', "'data_preprocessor'", 'no output']),
    (dict(mimic_name='no', teacher_mimic_name='top'), ['jobs.a.mimic_name', "no module 'no'"])])
def test_what_no_adapter_can_map_is_refused_before_training(tmp_path, teacher, job, parts):
    passes = PassRecorder()
    hook = DistillHook(dict(a=dict(job, loss=MSE, widths='adapter')), teacher[0])
    with pytest.raises(ConfigError) as error:
        build_runner(tmp_path, hooks=[passes, hook]).train()
    assert not passes.passes
    for part in parts:
        assert part in str(error.value)


def share(rank, folder, cfg, loop):
    """Trains in one of two processes, on every other image."""
    os.environ['LOCAL_RANK'] = str(rank)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=True)
    train_cfg = dict(type=loop, max_epochs=1)
    runner, _ = train(folder, JOBS, cfg, train_cfg=train_cfg, launcher='pytorch', train_dataloader=dataloader(48),
                      batch_size=12, cfg=Config(dict(model_wrapper_cfg=wrapper)),
                      seed=dict(seed=3, diff_rank_seed=True))
    own = runner.optim_wrapper
    return dict(states=own.states, values=own.values, gradients=own.adapter_gradients)


@pytest.mark.parametrize('loop', ['EpochBasedTrainLoop', 'mmbignas.SandwichTrainLoop'])
def test_in_two_processes(tmp_path, teacher, loop):
    """Each has the same adapters and the mean of the gradients."""
    first, second = run_processes(share, str(tmp_path), teacher[0], loop)
    assert len(first['values']) == 4
    for ours, theirs in zip([*first['values'], *first['gradients']], [*second['values'], *second['gradients']]):
        for name, value in ours.items():
            assert torch.equal(value, theirs[name]), name
    if loop == 'EpochBasedTrainLoop':
        space = Supernet(ToyModel()).space
        own = type('Pass', (), dict(subnet=space.max(), is_max=True))
        for iteration, batch in enumerate(train_batches(4, 12)):
            terms = [expected_pass(first['states'][iteration], first['values'][iteration],
                                   {name: value[rank::2] for name, value in batch.items()}, own, teacher[1], None)[0]
                     for rank in range(2)]
            expected = add_gradients(terms, 1 / 2)
            gradients = first['gradients'][iteration]
            assert_gradients_close(gradients, {name: expected[name] for name in gradients})


@pytest.mark.parametrize('hooks, message', [
    ([], None),
    ([ResumeHook()], 'custom_hooks: the checkpoint to resume from has distill_adapters of a DistillHook'),
    ([DistillHook(dict(other=dict(mimic_name='head', loss=MSE)))],
     r'DistillHook.jobs must be those .* adapters \[.conv_adapters.\], got'),
])
def test_resuming_without_them(tmp_path, hooks, message):
    train(tmp_path, IN_PLACE, default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)))
    runner = build_runner(tmp_path, hooks=hooks, resume=True, load_from=str(tmp_path / 'epoch_1.pth'))
    if hooks:
        with pytest.raises(ConfigError, match=message):
            runner.train()
    else:
        with pytest.raises(ValueError, match='parameter group'):  # torch's own: nothing of this package is there
            runner.train()


def test_the_same_job_in_two_hooks(tmp_path):
    hooks = [DistillHook(dict(conv=dict(mimic_name=name, loss=MSE))) for name in (CONV, 'head')]
    with pytest.raises(ConfigError, match='DistillHook.jobs must have names of their own: conv in several hooks'):
        build_runner(tmp_path, hooks=hooks).train()


@pytest.mark.parametrize('another', [False, True])
def test_a_frozen_student_learns_nothing(tmp_path, teacher, another):
    model = ToyModel()
    model.backbone.blocks[0].requires_grad_(False)
    jobs = dict(conv=dict(mimic_name=CONV, loss=MSE, **(dict(teacher_mimic_name='body.0', widths='adapter')
                                                        if another else {})))
    hooks = [DistillHook(jobs, teacher[0] if another else None)]
    with pytest.raises(ConfigError, match=r'jobs\.conv\.mimic_name must be modules whose outputs have gradients'):
        build_runner(tmp_path, model, hooks=hooks).train()


class BreakGradient(Hook):
    """Makes the gradient of an adapter infinite, in one iteration; all losses stay finite."""

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if batch_idx == 1:
            parameter = next(runner.optim_wrapper.adapters.parameters())
            self.handle = parameter.register_hook(lambda gradient: gradient * float('inf'))

    def after_train_iter(self, runner, batch_idx, data_batch=None, outputs=None):
        if batch_idx == 1:
            self.handle.remove()


def test_a_gradient_of_an_adapter_that_is_not_finite(tmp_path, teacher):
    """With clipping by the norm of all gradients, it would break every weight of the model."""
    runner, _ = train(tmp_path, teacher_cfg=teacher[0], hooks=[BreakGradient(), SkipNonFiniteHook()],
                      wrapper=dict(clip_grad=dict(max_norm=1.)))
    assert runner.message_hub.get_info('skipped_steps') == 1
    for own in (runner.model, runner.optim_wrapper.adapters):
        assert all(parameter.isfinite().all() for parameter in own.parameters())
