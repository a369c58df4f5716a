"""Distillation from another network against losses and gradients computed apart."""
import copy
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from mmengine.model import BaseModel, ImgDataPreprocessor
from mmengine.optim import OptimWrapper
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmbignas.distill import DistillHook, Teacher
from mmbignas.errors import ConfigError
from mmbignas.supernet import Supernet, calibrate_bn
from tests.distributed import run_processes
from tests.toy import (
    NUM_CLASSES,
    PassRecorder,
    RecordingOptimWrapper,
    ToyModel,
    ToyPreprocessor,
    add_gradients,
    assert_gradients_close,
    build_runner,
    calibration_batches,
    dataloader,
    train_batches,
)

CONV = 'backbone.blocks.0.0'
JOBS = dict(
    conv=dict(mimic_name=CONV, teacher_mimic_name='body.0', loss=dict(type='mmbignas.FeatureMSELoss'), loss_weight=2.5),
    score=dict(mimic_name='head', teacher_mimic_name='top', loss=dict(type='mmbignas.DenseKLLoss'), warm_up_iters=3,
               loss_weight=.7))
SCORE = dict(score=JOBS['score'])


class PlainTeacher(BaseModel):
    """A network with modules of its own, that does something else in train mode."""

    def __init__(self, width=8, preprocessor=None):
        super().__init__(preprocessor or ToyPreprocessor())
        self.body = nn.Sequential(nn.Conv2d(3, width, 3, padding=1), nn.BatchNorm2d(width), nn.ReLU(), nn.Dropout())
        self.top = nn.Linear(width, NUM_CLASSES)

    def forward(self, inputs, data_samples=None, mode='tensor'):
        assert mode == 'tensor'
        return self.top(self.body(inputs).mean((2, 3)))


@pytest.fixture(scope='module')
def teacher(tmp_path_factory):
    """A teacher's config for the hook, and the network."""
    torch.manual_seed(7)
    model = PlainTeacher()
    nn.init.uniform_(model.body[1].running_mean)
    path = tmp_path_factory.mktemp('teacher') / 'teacher.pth'
    torch.save(dict(state_dict=model.state_dict(), meta={}), path)
    return dict(config=dict(type=PlainTeacher), checkpoint=str(path)), model.eval()


class BuiltTeacher(PlainTeacher):
    """The same, with a preprocessor that is given as MMEngine's models are given theirs."""

    def __init__(self, data_preprocessor):
        super().__init__(preprocessor=data_preprocessor)


class Watch(Hook):
    """Looks at the teacher of a run and counts its forward passes."""

    def __init__(self):
        self.calls = 0

    def before_train_epoch(self, runner):
        [hook] = [hook for hook in runner.hooks if isinstance(hook, DistillHook)]
        [self.distillation] = hook._distillations
        self.teacher = self.distillation.teacher
        self.teacher.register_forward_hook(self.count)

    def count(self, module, inputs, output):
        self.calls += 1
        assert not any(own.training for own in module.modules())
        assert not output.requires_grad

    def after_val_epoch(self, runner, metrics=None):
        assert not self.distillation._seen and not self.distillation._taught.outputs


def train(folder, teacher_cfg, loop='epoch', jobs=JOBS, hooks=(), model=None, wrapper=RecordingOptimWrapper, **kwargs):
    watch = Watch()
    train_cfg = dict(type='EpochBasedTrainLoop', max_epochs=1) if loop == 'epoch' else dict(
        type='IterBasedTrainLoop', max_iters=4)
    optim_wrapper = dict(type=wrapper, **kwargs.pop('optim_wrapper', {}))
    hooks = [PassRecorder(), DistillHook(jobs, teacher_cfg), watch, *hooks]
    runner = build_runner(folder, model or ToyModel(), hooks=hooks, optim_wrapper=optim_wrapper,
                          **{'train_cfg': train_cfg, **kwargs})
    runner.train()
    return runner, watch


def outputs_of(model, data, name, mode):
    """What a module puts out, seen by a hook of its own, and what the model returns."""
    seen = []
    handle = model.get_submodule(name).register_forward_hook(lambda module, args, output: seen.append(output))
    result = model(**data, mode=mode)
    handle.remove()
    return result, seen[0]


def expected_losses(model, teacher, batch, iteration, jobs=JOBS):
    """The model's losses and those of :data:`JOBS`, from their definitions."""
    data = model.data_preprocessor(batch, True)
    result = {}
    if 'conv' in jobs:
        result['loss_distill_conv'] = 2.5 * (outputs_of(model, data, CONV, 'tensor')[1]
                                             - teacher.body[0](data['inputs'])).square().mean()
    losses, logits = outputs_of(model, data, 'head', 'loss')
    p, q = (torch.distributions.Bernoulli(logits=own) for own in (teacher(data['inputs']), logits))
    score = torch.distributions.kl_divergence(p, q).sum() / p.probs.sum().clamp(min=1)
    result['loss_distill_score'] = .7 * min(1, iteration / 3) * score
    return {**losses, **result}


def expected_gradients(state, teacher, batch, iteration, jobs=JOBS, subnet=None, factor=1.):
    """Losses and gradients, in float64, of a model with this state."""
    model, teacher = ToyModel(), copy.deepcopy(teacher).double().requires_grad_(False)
    model.load_state_dict(state)
    if subnet is not None:
        Supernet(model).apply(subnet)
    model.double().train()
    losses = expected_losses(model, teacher, dict(batch, inputs=batch['inputs'].double()), iteration, jobs)
    (sum(value for name, value in losses.items() if 'loss' in name) * factor).backward()
    return losses, {name: None if parameter.grad is None else parameter.grad.float()
                    for name, parameter in model.named_parameters()}


@pytest.mark.parametrize('accumulated', [1, 2])
@pytest.mark.parametrize('loop', ['epoch', 'iteration'])
def test_losses_and_gradients(tmp_path, teacher, loop, accumulated):
    runner, watch = train(tmp_path, teacher[0], loop, optim_wrapper=dict(accumulative_counts=accumulated))
    assert watch.calls == 4
    assert len(runner.optim_wrapper.states) == 4 // accumulated
    for step, (state, gradients) in enumerate(zip(runner.optim_wrapper.states, runner.optim_wrapper.gradients)):
        terms = []
        for iteration in range(step * accumulated, (step + 1) * accumulated):
            losses, own = expected_gradients(state, teacher[1], train_batches()[iteration], iteration,
                                             factor=1 / accumulated)
            terms.append(own)
            for name, value in losses.items():
                logged = runner.message_hub.get_scalar(f'train/{name}').data[0][iteration]
                assert logged == pytest.approx(value.item(), rel=1e-4, abs=1e-6)
        assert_gradients_close(gradients, add_gradients(terms))


def test_every_pass_of_the_sandwich_is_a_student(tmp_path, teacher):
    strategy = ['max', 'min', 'random', 'random']
    runner, watch = train(tmp_path, teacher[0], jobs=SCORE, train_cfg=dict(
        sample_subnet_num=4, sample_strategy=strategy))
    assert watch.calls == 4  # once a batch, not once a pass
    [passes] = [hook.passes for hook in runner.hooks if isinstance(hook, PassRecorder)]
    for iteration, batch in enumerate(train_batches()):
        terms = []
        for own in passes[4 * iteration:4 * iteration + 4]:
            losses, gradients = expected_gradients(runner.optim_wrapper.states[iteration], teacher[1], batch, iteration,
                                                   SCORE, own.subnet)
            terms.append(gradients)
            logged = runner.message_hub.get_scalar(f'train/{own.name}.loss_distill_score').data[0][iteration]
            assert logged == pytest.approx(losses['loss_distill_score'].item(), rel=1e-4, abs=1e-6)
        assert_gradients_close(runner.optim_wrapper.gradients[iteration], add_gradients(terms))


def expected_with_soft_labels(state, teacher, batch, subnet=None):
    """Losses and gradients, in float64, of a model that learns its classes from the teacher alone."""
    model, teacher = ToyModel(), copy.deepcopy(teacher).double()
    model.load_state_dict(state)
    if subnet is not None:
        Supernet(model).apply(subnet)
    data = model.double().train().data_preprocessor(dict(batch, inputs=batch['inputs'].double()), True)
    losses, logits = outputs_of(model, data, 'head', 'loss')
    with torch.no_grad():
        p = teacher(data['inputs']).softmax(1)
    losses['hard_label_cls'] = losses.pop('loss_cls')
    losses['loss_distill_soft'] = .5 * (p * (p.log() - logits.log_softmax(1))).sum(1).mean()
    losses['loss'] = losses['loss_norm'] + losses['loss_distill_soft']
    losses['loss'].backward()
    return losses, {name: None if parameter.grad is None else parameter.grad.float()
                    for name, parameter in model.named_parameters()}


SOFT = dict(soft=dict(mimic_name='head', teacher_mimic_name='top', loss=dict(type='mmbignas.SoftLabelLoss'),
                      loss_weight=.5, replaces='loss_cls'))


@pytest.mark.parametrize('loop', ['epoch', 'iteration'])
def test_fine_tuning_on_soft_labels_alone(tmp_path, teacher, loop):
    runner, _ = train(tmp_path, teacher[0], loop, SOFT)
    for iteration, batch in enumerate(train_batches()):
        losses, gradients = expected_with_soft_labels(runner.optim_wrapper.states[iteration], teacher[1], batch)
        assert_gradients_close(runner.optim_wrapper.gradients[iteration], gradients)
        for name, value in losses.items():
            logged = runner.message_hub.get_scalar(f'train/{name}').data[0][iteration]
            assert logged == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
    assert 'train/loss_cls' not in runner.message_hub.log_scalars


def test_all_subnets_learn_from_another_network_alone(tmp_path, teacher):
    """With a teacher, the largest subnet is a student too."""
    runner, _ = train(tmp_path, teacher[0], jobs=SOFT, train_cfg=dict(
        sample_subnet_num=3, sample_strategy=['max', 'min', 'random']))
    [passes] = [hook.passes for hook in runner.hooks if isinstance(hook, PassRecorder)]
    for iteration, batch in enumerate(train_batches()):
        terms = [expected_with_soft_labels(runner.optim_wrapper.states[iteration], teacher[1], batch, own.subnet)[1]
                 for own in passes[3 * iteration:3 * iteration + 3]]
        assert_gradients_close(runner.optim_wrapper.gradients[iteration], add_gradients(terms))
    names = {*runner.message_hub.log_scalars}
    assert {f'train/{own}.hard_label_cls' for own in ('max', 'min')} <= names
    assert not any(name.endswith('loss_cls') for name in names)


def test_a_loss_that_is_not_there_cannot_be_replaced(tmp_path, teacher):
    jobs = dict(soft=dict(SOFT['soft'], replaces=['loss_norm', 'loss']))
    assert refused(tmp_path, teacher[0], jobs) == (
        "DistillHook.jobs.soft.replaces must be one of the model's losses, loss_cls, loss_norm, got 'loss'")


def test_the_teacher_is_no_part_of_the_run(tmp_path, teacher):
    model = ToyModel()
    runner, watch = train(tmp_path, teacher[0], model=model, val_cfg={}, default_hooks=dict(
        checkpoint=dict(type='CheckpointHook', interval=1)))
    assert runner.model.state_dict().keys() == ToyModel().state_dict().keys()
    saved = torch.load(tmp_path / 'epoch_1.pth')
    assert saved['state_dict'].keys() == ToyModel().state_dict().keys()
    optimized = {id(parameter) for group in runner.optim_wrapper.param_groups for parameter in group['params']}
    assert optimized == {id(parameter) for parameter in model.parameters()}
    assert not any(parameter.requires_grad for parameter in watch.teacher.parameters())
    for name, value in teacher[1].state_dict().items():
        assert torch.equal(watch.teacher.state_dict()[name], value), name
    assert watch.calls == 4  # none in validation
    assert not model._forward_hooks and not model._forward_pre_hooks
    assert all(not module._forward_hooks for module in model.modules())
    assert not [hook for hook in runner.hooks if isinstance(hook, DistillHook)][0]._distillations


def test_resuming(tmp_path, teacher):
    """With the warm-up where it was."""
    arguments = dict(train_cfg=dict(type='EpochBasedTrainLoop', max_epochs=2), batches=2)
    checkpoint = dict(checkpoint=dict(type='CheckpointHook', interval=1))
    whole, _ = train(tmp_path / 'whole', teacher[0], default_hooks=checkpoint, **arguments)
    resumed, watch = train(tmp_path / 'resumed', teacher[0], resume=True,
                           load_from=str(tmp_path / 'whole' / 'epoch_1.pth'), **arguments)
    assert watch.calls == 2
    for name, value in whole.model.state_dict().items():
        assert torch.equal(value, resumed.model.state_dict()[name]), name


def test_building_the_teacher_draws_no_random_numbers(tmp_path, teacher):
    class Draw(Hook):
        priority = 'LOWEST'

        def before_train(self, runner):
            draws.append(torch.rand(3))

    draws = []
    for hooks in ([Draw()], [DistillHook(JOBS, teacher[0]), Draw()]):
        build_runner(tmp_path, hooks=hooks, train_cfg=dict(type='EpochBasedTrainLoop')).train()
    assert torch.equal(*draws)


class Bfloat16(OptimWrapper):
    """Mixed precision on the CPU."""

    def optim_context(self, model):
        return torch.autocast('cpu', torch.bfloat16)


def test_mixed_precision(tmp_path, teacher):
    exact, _ = train(tmp_path / 'exact', teacher[0], wrapper=OptimWrapper)
    mixed, _ = train(tmp_path / 'mixed', teacher[0], wrapper=Bfloat16)
    for name in ('loss_distill_conv', 'loss_distill_score', 'loss'):
        first, second = (own.message_hub.get_scalar(f'train/{name}').data[0] for own in (exact, mixed))
        assert second == pytest.approx(first, rel=.03)
        assert tuple(first) != tuple(second)


class GiveData(Hook):
    """Puts a dataloader into the config, where the toy runner has none."""

    priority = 'HIGHEST'

    def before_train(self, runner):
        runner.cfg = Config(dict(train_dataloader=dataloader(24)))


def supernet_teacher(folder):
    model = ToyModel(seed=5)
    for block in model.backbone.blocks:
        nn.init.constant_(block[1].running_mean, 9.)
    torch.save(model.state_dict(), folder / 'supernet.pth')
    return dict(config=dict(type=ToyModel), checkpoint=str(folder / 'supernet.pth'), num_images=12), model


def test_a_supernet_teaches_as_its_largest_subnet_calibrated(tmp_path):
    cfg, model = supernet_teacher(tmp_path)
    jobs = dict(head=dict(mimic_name='head', loss=dict(type='mmbignas.FeatureMSELoss')))
    runner, watch = train(tmp_path, cfg, jobs=jobs, hooks=[GiveData()])
    calibrate_bn(model, calibration_batches())
    for name, value in model.state_dict().items():
        torch.testing.assert_close(watch.teacher.state_dict()[name], value)
    model.eval()
    for iteration, batch in enumerate(train_batches()):
        student = ToyModel().train()
        student.load_state_dict(runner.optim_wrapper.states[iteration])
        images = batch['inputs'] * 2 - .5
        expected = (student(images) - model(images)).square().mean().item()
        logged = runner.message_hub.get_scalar('train/loss_distill_head').data[0][iteration]
        assert logged == pytest.approx(expected, rel=1e-4)


def refused(folder, cfg, jobs=JOBS, **kwargs):
    model = ToyModel()
    before = copy.deepcopy(model.state_dict())
    with pytest.raises(ConfigError) as error:
        train(folder, cfg, jobs=jobs, model=model, **kwargs)
    assert '\n' not in str(error.value)
    assert all(torch.equal(value, model.state_dict()[name]) for name, value in before.items() if 'running' not in name
               and 'num_batches' not in name)
    return str(error.value)


def test_what_cannot_teach_is_refused_before_training(tmp_path, teacher):
    cfg = teacher[0]
    (tmp_path / 'empty.py').write_text('data = 1\n')
    (tmp_path / 'broken.pth').write_bytes(b'123')
    wrong = dict(score=dict(JOBS['score'], teacher_mimic_name='tip'))
    for own, jobs, parts in (
            (dict(cfg, config='none.py'), JOBS, ['DistillHook.teacher.config', 'config file not found: none.py']),
            (dict(cfg, config=str(tmp_path / 'empty.py')), JOBS, ['DistillHook.teacher.config', 'has no model']),
            (dict(cfg, checkpoint='none.pth'), JOBS, ['DistillHook.teacher', 'checkpoint not found: none.pth']),
            (dict(cfg, checkpoint=str(tmp_path / 'broken.pth')), JOBS, ['broken.pth: cannot be read']),
            (dict(cfg, config=dict(type=PlainTeacher, width=4)), JOBS, ['DistillHook.teacher', 'another architecture',
                                                                        'body.0.weight']),
            (cfg, wrong, ['DistillHook.jobs.score.teacher_mimic_name, in the teacher', "no module 'tip'", 'body, top']),
            (cfg, dict(score=dict(JOBS['score'], mimic_name='tip')), ['DistillHook.jobs.score.mimic_name', "'tip'"]),
            (dict(cfg, config=dict(type=PlainTeacher, preprocessor=dict(
                type=ImgDataPreprocessor, mean=[1, 2, 3], std=[4, 5, 6]))), JOBS,
             ['DistillHook.teacher.config: data_preprocessor.mean must be None', 'got [1, 2, 3]']),
            # MMPretrain's preprocessor has another name for it than MMEngine's.
            (dict(cfg, config=dict(type=PlainTeacher, preprocessor=dict(
                type='mmpretrain.ClsDataPreprocessor', to_rgb=True))), JOBS,
             ['DistillHook.teacher.config', 'reversed_channels must be False', 'got True']),
    ):
        message = refused(tmp_path, own, jobs)
        for part in parts:
            assert part in message


def test_a_data_preprocessor_beside_the_model(tmp_path, teacher):
    """As in configs of MMPretrain, a file with `_base_` here; the model's own has the precedence, as in a Runner."""
    (tmp_path / 'base.py').write_text("data_preprocessor = dict(type='ImgDataPreprocessor', mean=[1, 2, 3], "
                                      "std=[4, 5, 6])\n")
    beside = "_base_ = 'base.py'\nmodel = dict(type='tests.distill.test_distill_teacher.BuiltTeacher'{})\n"
    for name, own, mean in (('beside', '', [1, 2, 3]), ('both', ", data_preprocessor=dict(type='ImgDataPreprocessor', "
                                                                'mean=[7, 8, 9], std=[4, 5, 6])', [7, 8, 9])):
        (tmp_path / f'{name}.py').write_text(beside.format(own))
        source = Teacher(str(tmp_path / f'{name}.py'), teacher[0]['checkpoint'])
        assert source.load().data_preprocessor.mean.flatten().tolist() == mean


def test_a_teacher_of_another_scope_than_the_run(tmp_path):
    """Types without a scope in a teacher's file are those of its own ``default_scope``."""
    (tmp_path / 'teacher.py').write_text(
        "default_scope = 'mmpretrain'\n"
        "model = dict(type='ImageClassifier', backbone=dict(type='VisionTransformer', arch='deit-tiny', img_size=32),\n"
        "             head=dict(type='VisionTransformerClsHead', num_classes=3, in_channels=192))\n")
    model = MODELS.build(dict(Config.fromfile(str(tmp_path / 'teacher.py')).model, _scope_='mmpretrain'))
    torch.save(dict(state_dict=model.state_dict()), tmp_path / 'teacher.pth')
    init_default_scope('mmdet')
    built = Teacher(str(tmp_path / 'teacher.py'), str(tmp_path / 'teacher.pth')).load()
    assert type(built).__module__.startswith('mmpretrain.')


def test_a_supernet_without_images_to_calibrate_it(tmp_path):
    jobs = dict(head=dict(mimic_name='head', loss=dict(type='mmbignas.FeatureMSELoss')))
    assert 'no train_dataloader' in refused(tmp_path, supernet_teacher(tmp_path)[0], jobs)


def test_outputs_that_cannot_be_compared(tmp_path, teacher):
    mse = dict(type='mmbignas.FeatureMSELoss')
    for job, parts in (
            (dict(mimic_name=CONV, teacher_mimic_name='top'),
             ['jobs.a.mimic_name', repr(CONV), "'top'", '(6, 8, 6, 6) instead of the (6, 5)']),
            (dict(mimic_name='spare', teacher_mimic_name='top'),
             ['jobs.a.mimic_name', "'spare'", 'of the model', 'no output']),
            (dict(mimic_name='head', teacher_mimic_name='data_preprocessor'),
             ['jobs.a.teacher_mimic_name', 'of the teacher', 'no output']),
    ):
        message = refused(tmp_path, teacher[0], dict(a=dict(job, loss=mse)))
        for part in parts:
            assert part in message


@pytest.mark.parametrize(('teacher_cfg', 'parts'), [
    ('teacher.pth', ['DistillHook.teacher must be a dict', 'config, checkpoint', "'teacher.pth'"]),
    (dict(config='a.py'), ['DistillHook.teacher must be a dict', "no key 'checkpoint'"]),
    (dict(config='a.py', checkpoint='a.pth', weights=1), ['DistillHook.teacher', "key 'weights'"]),
    (dict(config=dict(model=dict()), checkpoint='a.pth'), ['DistillHook.teacher.config', 'a dict with type']),
    (dict(config='a.py', checkpoint=None), ['DistillHook.teacher.checkpoint', 'None']),
    (dict(config='a.py', checkpoint='a.pth', num_images=0), ['DistillHook.teacher.num_images', '0']),
    (dict(a=dict(config='a.py', checkpoint='a.pth'), b=dict(config='b.py')), ['DistillHook.teacher.b', 'checkpoint']),
    ({'a/b': dict(config='a.py', checkpoint='a.pth')}, ['DistillHook.teacher', "'a/b'", "without '/'"]),
    (dict(max=dict(config='a.py', checkpoint='a.pth')), ['DistillHook.teacher', "'max'", 'the largest subnet']),
    (dict(a=dict(config='a.py', checkpoint='a.pth'), b=dict(config='b.py', checkpoint='b.pth')),
     ['DistillHook.jobs.conv.teacher must be one of max, a, b', 'got None']),
])
def test_bad_teachers(teacher_cfg, parts):
    with pytest.raises(ConfigError) as error:
        DistillHook(JOBS, teacher_cfg)
    assert '\n' not in str(error.value)
    for part in parts:
        assert part in str(error.value)


def share(rank, folder, cfg):
    """Trains in one of two processes, on every other image."""
    os.environ['LOCAL_RANK'] = str(rank)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None, find_unused_parameters=True)
    runner, watch = train(folder, cfg, model=ToyModel(), launcher='pytorch', train_dataloader=dataloader(48),
                          batch_size=12, cfg=Config(dict(model_wrapper_cfg=wrapper)))
    return dict(states=runner.optim_wrapper.states, gradients=runner.optim_wrapper.gradients, calls=watch.calls)


def test_in_two_processes(tmp_path, teacher):
    first, second = run_processes(share, str(tmp_path), teacher[0])
    assert first['calls'] == second['calls'] == len(first['gradients']) == 4
    for iteration, batch in enumerate(train_batches(4, 12)):
        terms = []
        for rank, own in enumerate((first, second)):
            local = {name: value[rank::2] for name, value in batch.items()}
            terms.append(expected_gradients(own['states'][iteration], teacher[1], local, iteration)[1])
        expected = add_gradients(terms, 1 / 2)
        for own in (first, second):
            gradients = {name: value for name, value in own['gradients'][iteration].items() if 'spare' not in name}
            assert_gradients_close(gradients, {name: expected[name] for name in gradients})
