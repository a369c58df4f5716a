"""Several jobs of several teachers, each with its own weight and time, against losses and gradients computed apart."""
import copy

import pytest
import torch
from mmengine.registry import MODELS
from torch import nn
from torch.nn import functional as F

from mmbignas.distill import DistillHook
from mmbignas.errors import ConfigError
from mmbignas.supernet import Supernet
from tests.distill.test_distill_teacher import PlainTeacher
from tests.toy import (
    PassRecorder,
    RecordingOptimWrapper,
    ToyModel,
    add_gradients,
    assert_gradients_close,
    build_runner,
    train_batches,
)

MSE = dict(type='mmbignas.FeatureMSELoss')
STRATEGY = ['max', 'min', 'random']


@MODELS.register_module()
class RightLoss(nn.Module):
    """A user's own loss that looks at the labels: the squared difference where the class is an even number."""

    needs_data_samples = True

    def forward(self, student, teacher, data_samples):
        [[x]], [[y]] = student, teacher
        return ((x - y).square().mean(1) * (data_samples % 2 == 0)).mean()


@pytest.fixture(scope='module')
def teachers(tmp_path_factory):
    """Name -> config, and name -> network."""
    configs, networks = {}, {}
    for name, width in (('big', 12), ('small', 3)):
        torch.manual_seed(width)
        networks[name] = PlainTeacher(width).eval()
        path = tmp_path_factory.mktemp('teacher') / f'{name}.pth'
        torch.save(dict(state_dict=networks[name].state_dict()), path)
        configs[name] = dict(config=dict(type=PlainTeacher, width=width), checkpoint=str(path))
    return configs, networks


JOBS = dict(
    all=dict(mimic_name='head', loss=MSE, loss_weight=.5, teacher=dict(
        max=dict(), big=dict(mimic_name='top', loss_weight=3.), small=dict(mimic_name='top', loss_weight=0.25))),
    late=dict(mimic_name='head', teacher_mimic_name='top', loss=MSE, teacher='big', begin=1, end=3, warm_up_iters=2),
    early=dict(mimic_name='head', loss=MSE, teacher='max', end=2),
    labels=dict(mimic_name='head', teacher_mimic_name='top', loss=dict(type='RightLoss'), teacher=['small']),
)


def train(folder, configs, jobs=JOBS, **kwargs):
    passes, hook = PassRecorder(), DistillHook(jobs, configs)
    runner = build_runner(folder, hooks=[passes, hook], optim_wrapper=dict(type=RecordingOptimWrapper),
                          train_cfg=dict(sample_subnet_num=3, sample_strategy=STRATEGY), **kwargs)
    runner.train()
    return runner, passes.passes


def expected_losses(logits, taught, labels, iteration, is_max):
    """The entries of :data:`JOBS`, from their definitions."""
    def mse(name):
        return (logits - taught[name]).square().mean()

    losses = dict(loss_distill_all_big=1.5 * mse('big'), loss_distill_all_small=.125 * mse('small'))
    even = (labels % 2 == 0).double()
    losses['loss_distill_labels'] = ((logits - taught['small']).square().mean(1) * even).mean()
    if 1 <= iteration < 3:
        losses['loss_distill_late'] = (iteration - 1) / 2 * mse('big')
    if not is_max:
        losses['loss_distill_all_max'] = .5 * mse('max')
        if iteration < 2:
            losses['loss_distill_early'] = mse('max')
    return losses


@pytest.mark.parametrize('seed', range(3))
def test_losses_and_gradients(tmp_path, teachers, seed):
    configs, networks = teachers
    runner, passes = train(tmp_path, configs, seed=seed)
    logged = {name: iter(buffer.data[0]) for name, buffer in runner.message_hub.log_scalars.items()}
    for iteration, batch in enumerate(train_batches()):
        model, taught, terms = ToyModel(), {}, []
        model.load_state_dict(runner.optim_wrapper.states[iteration])
        data = model.double().train().data_preprocessor(dict(batch, inputs=batch['inputs'].double()), True)
        for name, network in networks.items():
            with torch.no_grad():
                taught[name] = copy.deepcopy(network).double()(data['inputs'])
        for own in passes[3 * iteration:3 * iteration + 3]:
            Supernet(model).apply(own.subnet)
            model.zero_grad()
            logits = model(data['inputs'])
            taught.setdefault('max', logits.detach())
            losses = expected_losses(logits, taught, batch['data_samples'], iteration, own.is_max)
            total = F.cross_entropy(logits, batch['data_samples']) + logits.square().mean() + sum(losses.values())
            total.backward()
            terms.append({name: None if value.grad is None else value.grad.float()
                          for name, value in model.named_parameters()})
            for name, value in losses.items():
                assert next(logged[f'train/{own.name}.{name}']) == pytest.approx(value.item(), rel=1e-4, abs=1e-6), name
        assert_gradients_close(runner.optim_wrapper.gradients[iteration], add_gradients(terms))
    assert all(next(values, None) is None for name, values in logged.items() if 'distill' in name)


def test_a_teacher_computes_only_while_a_job_needs_it(tmp_path, teachers):
    calls = []

    class Counted(PlainTeacher):
        def forward(self, *args, **kwargs):
            calls.append(len(calls))
            return super().forward(*args, **kwargs)

    config = dict(teachers[0]['small'], config=dict(type=Counted, width=3))
    jobs = dict(a=dict(mimic_name='head', teacher_mimic_name='top', loss=MSE, begin=1, end=3))
    train(tmp_path, config, jobs)
    assert len(calls) == 2


def test_one_loss_replaced_by_several_teachers(tmp_path, teachers):
    """The largest subnet, too, has another teacher."""
    jobs = dict(a=dict(mimic_name='head', loss=MSE, replaces='loss_cls',
                       teacher=dict(max=dict(), big=dict(mimic_name='top'))))
    runner, _ = train(tmp_path, dict(big=teachers[0]['big']), jobs)
    names = {*runner.message_hub.log_scalars}
    for own in ('max', 'min', 'random0'):
        assert f'train/{own}.hard_label_cls' in names and f'train/{own}.loss_cls' not in names
        assert f'train/{own}.loss_distill_a_big' in names
    assert 'train/min.loss_distill_a_max' in names and 'train/max.loss_distill_a_max' not in names


@pytest.mark.parametrize(('jobs', 'parts'), [
    (dict(a=dict(mimic_name='head', loss=MSE, teacher=['big', 'other'])),
     ['DistillHook.jobs.a.teacher', "['big', 'other']", 'max, big, small']),
    (dict(a=dict(mimic_name='head', loss=MSE, teacher='big')),
     ['DistillHook.teacher.small must be a teacher of some job']),
    (dict(a=dict(mimic_name='head', loss=MSE, teacher=dict(big=dict(mimic_name=['top', 'body']), small=dict()))),
     ['jobs.a.teacher.big.mimic_name', "['top', 'body']", 'as many modules']),
    (dict(a=dict(mimic_name='head', teacher_mimic_name=['top', 'body'], loss=MSE, teacher=['big', 'small'])),
     ['jobs.a.teacher_mimic_name', "['top', 'body']", 'as many modules']),
    (dict(a=dict(mimic_name='head', loss=MSE, teacher=['big', 'small']), a_big=dict(
        mimic_name='head', loss=MSE, teacher='big')), ['jobs.a_big', 'loss_distill_a_big', 'another name']),
])
def test_bad_jobs(teachers, jobs, parts):
    with pytest.raises(ConfigError) as error:
        DistillHook(jobs, teachers[0])
    assert '\n' not in str(error.value)
    for part in parts:
        assert part in str(error.value)
