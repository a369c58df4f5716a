"""Sandwich training in two processes."""
import os
from pathlib import Path

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from mmbignas.distill import DistillHook
from mmbignas.evaluation import BNCalibrationHook
from mmbignas.train import RegularizeLargestHook
from mmbignas.utils.distributed import average_gradients
from tests.distributed import run_processes
from tests.toy import (
    PassRecorder,
    RecordingOptimWrapper,
    ToyModel,
    add_gradients,
    assert_gradients_close,
    build_runner,
    dataloader,
    gradients_of,
    train_batches,
)

SHAPES = [(3, 2), (4, ), (2, 3, 1), (1, ), (5, ), (2, 2), ()]
# Which of the two processes have a gradient of each parameter; the last two are of other kinds of numbers.
PRESENT = [(True, True), (False, False), (True, False), (False, True), (True, True), (True, True), (True, False)]


def gradient(rank, index):
    generator = torch.Generator().manual_seed(10 * index + rank)
    return torch.randn(SHAPES[index], generator=generator)


def parameters(rank):
    """Parameters with the gradients that a process has before averaging; one of them is not trained."""
    own = [nn.Parameter(torch.zeros(shape), requires_grad=index != 4) for index, shape in enumerate(SHAPES)]
    own[5].data = own[5].data.double()
    for index, parameter in enumerate(own):
        if PRESENT[index][rank]:
            parameter.grad = gradient(rank, index).to(parameter.dtype)
    return own


def average(rank):
    own = parameters(rank)
    kept = own[0].grad
    average_gradients(iter(own))
    assert own[0].grad is kept
    average_gradients([])
    return [parameter.grad for parameter in own]


def everything(rank, folder):
    """All that this file looks at, in one start of two processes."""
    return dict(average=average(rank), plain=run(rank, folder, False), full=run(rank, folder, True),
                sent=communication(rank, folder))


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    return run_processes(everything, str(tmp_path_factory.mktemp('run')))


@pytest.fixture(params=['plain', 'full'])
def processes(request, results):
    return [own[request.param] for own in results]


def test_average_gradients(results):
    averages = [own['average'] for own in results]
    for rank, gradients in enumerate(averages):
        for index, value in enumerate(gradients):
            if index == 4:  # left alone
                assert torch.equal(value, gradient(rank, index))
            elif not any(PRESENT[index]):
                assert value is None
            else:
                expected = sum(gradient(other, index) for other in range(2) if PRESENT[index][other]) / 2
                torch.testing.assert_close(value, expected.to(value.dtype))
                assert torch.equal(value, averages[1 - rank][index])


def test_one_process_averages_nothing():
    own = parameters(0)
    before = [parameter.grad for parameter in own]
    average_gradients(own)
    assert all(parameter.grad is old for parameter, old in zip(own, before))


def local_batch(rank, iteration):
    """A process's share of a batch of 12: every other image."""
    batch = train_batches(4, 12)[iteration % 4]
    return {name: value[rank::2] for name, value in batch.items()}


def run(rank, folder, full):
    """Train in one of two processes with MMEngine's own model wrapper."""
    os.environ['LOCAL_RANK'] = str(rank)
    model, passes = ToyModel(seed=rank), PassRecorder()
    job = dict(head=dict(mimic_name='head', loss=dict(type='mmbignas.DenseKLLoss')))
    hooks = [DistillHook(job), RegularizeLargestHook(), BNCalibrationHook(12, dataloader(24))] if full else []
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
    runner = build_runner(
        folder, model, hooks=[passes, *hooks], batches=4, batch_size=12, launcher='pytorch',
        train_dataloader=dataloader(48), cfg=Config(dict(model_wrapper_cfg=wrapper)),
        seed=dict(seed=3, diff_rank_seed=True), train_cfg=dict(max_epochs=2, valid_before_train=full),
        val_cfg=dict(calib_bn=True) if full else None,
        optim_wrapper=dict(type=RecordingOptimWrapper, accumulative_counts=1 if full else 2,
                           clip_grad=dict(max_norm=.1)))
    assert type(runner.model).__name__ == 'MMDistributedDataParallel'
    runner.train()
    local = []
    if not full:
        steps = runner.optim_wrapper.states
        for step, state in enumerate(steps):
            reference, terms = ToyModel(), []
            reference.load_state_dict(state)
            for own in passes.passes[8 * step:8 * step + 8]:
                terms.append(gradients_of(reference, local_batch(rank, own.iteration), own.subnet))
            local.append(add_gradients(terms, 1 / 2))
    files = sorted(path for path in os.listdir(runner.log_dir) if path.endswith('jsonl'))
    lines = [Path(runner.log_dir, path).read_text().count('\n') for path in files]
    scalars = {name: buffer.current() for name, buffer in runner.message_hub.log_scalars.items() if name[:3] == 'val'}
    return dict(seed=runner.seed, subnets=[(own.iteration, own.name, own.subnet.to_dict()) for own in passes.passes],
                parameters=dict(model.named_parameters()), gradients=runner.optim_wrapper.gradients,
                clips=runner.optim_wrapper.clips, local=local, files=files, lines=lines, scalars=scalars)


class Listener(Hook):
    """Notes what is sent from one iteration to the next: function of torch, numbers, bytes of each."""

    def __init__(self):
        self.sent = [[]]

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        self.sent.append([])

    def wrap(self, name):
        function = getattr(torch.distributed, name)

        def listening(*args, **kwargs):
            tensor = next(own for own in (*args, *kwargs.values()) if isinstance(own, torch.Tensor))
            self.sent[-1].append((name, tensor.numel(), tensor.element_size()))
            return function(*args, **kwargs)

        return listening


def communication(rank, folder):
    """What is sent in iterations with and without an optimizer step; and by DDP's own hooks."""
    model, listener, buckets = ToyModel(), Listener(), []
    runner = build_runner(
        folder, model, hooks=[listener], batches=4, batch_size=12, launcher='pytorch',
        train_dataloader=dataloader(48), optim_wrapper=dict(accumulative_counts=2),
        cfg=Config(dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None))))
    runner.model.register_comm_hook(None, lambda state, bucket: buckets.append(bucket))
    with pytest.MonkeyPatch.context() as patch:
        for name in ('all_reduce', 'all_gather', 'reduce', 'gather', 'broadcast', 'scatter', 'reduce_scatter'):
            patch.setattr(torch.distributed, name, listener.wrap(name))
        runner.train()
    return dict(sent=listener.sent, buckets=len(buckets),
                parameters={name: parameter.numel() for name, parameter in model.named_parameters()})


def test_gradients_are_sent_once_and_together(results):
    """One number a parameter, whether it has a gradient, and all gradients in one piece."""
    for own in results:
        parameters, sent = own['sent']['parameters'], own['sent']['sent']
        trained = sum(count for name, count in parameters.items() if not name.startswith('spare'))
        step = [('all_reduce', len(parameters), 4), ('all_reduce', trained, 4)]
        assert sent[1] == [('all_gather', 2 + len(parameters), 8)]  # before the first one, to see that all is the same
        assert sent[2:5] == [step, [], step]
        assert own['sent']['buckets'] == 0


def test_same_subnets_and_weights(processes):
    first, second = processes
    assert (first['seed'], second['seed']) == (3, 4)
    assert first['subnets'] == second['subnets']
    assert len(first['subnets']) == 32
    assert len({str(settings) for _, name, settings in first['subnets'] if 'random' in name}) > 8
    for name, value in first['parameters'].items():
        assert torch.equal(value, second['parameters'][name]), name
        if 'weight' in name:
            assert torch.equal(value, ToyModel(seed=0).get_parameter(name)) is name.startswith('spare')


def test_gradient_is_the_mean_of_the_processes(processes):
    first, second = processes
    assert first['clips'] == second['clips'] == len(first['gradients']) == (4 if first['local'] else 8)
    for ours, theirs in zip(first['gradients'], second['gradients']):
        for name, value in ours.items():
            assert (value is None) == name.startswith('spare')
            assert value is None or torch.equal(value, theirs[name])
    for averaged, one, other in zip(first['gradients'], first['local'], second['local']):
        assert_gradients_close(averaged, add_gradients([one, other], 1 / 2))
        with pytest.raises(AssertionError):
            assert_gradients_close(averaged, one)


def test_validation(processes):
    first, second = processes
    if first['local']:
        assert not first['scalars']
        return
    assert first['files'] == second['files'] == ['subnets_val.jsonl']
    assert first['lines'] == [6]
    assert set(first['scalars']) == {f'val/{name}_calib/toy/{metric}' for name in ('max', 'min')
                                     for metric in ('accuracy', 'likelihood')}
    assert first['scalars'] == second['scalars']
