"""Passes ``best_up`` and ``worst_up``: which subnets are candidates, which one is trained, and what stays as it was."""
import contextlib
import copy
import math
import os
import random

import numpy as np
import pytest
import torch
from mmengine.config import Config
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from torch.nn import functional
from torch.utils.data import Dataset

from mmbignas.cost import CostModel
from mmbignas.distill import DistillHook
from mmbignas.errors import ConfigError
from mmbignas.evaluation import BNCalibrationHook
from mmbignas.space import ModuleSpace, SearchSpace
from mmbignas.supernet import Supernet
from mmbignas.train import RegularizeLargestHook
from mmbignas.train.attentive import MAX_DRAWS_PER_CANDIDATE, AttentiveSampling, choose, read_attentive
from mmbignas.train.sandwich_rule import SandwichRule
from mmbignas.train.subnet_pass import SubnetPass
from tests import small_models
from tests.distributed import run_processes
from tests.toy import (
    NUM_CLASSES,
    PassRecorder,
    RecordingOptimWrapper,
    ToyModel,
    build_runner,
    calibration,
    dataloader,
    losses_of,
    train_batches,
)

STRATEGY = ['max', 'min', 'best_up', 'worst_up']
TOY_SPACE = ToyModel().backbone.search_space
WIDE = dict(candidates=4, tolerance=.5)


def rule(strategy, sizes=(), share=False, **settings):
    model = ToyModel()
    attentive = read_attentive(settings or None, strategy, model, sizes)
    return SandwichRule(Supernet(model).space, len(strategy), strategy, sizes, share, attentive)


def macs_by_hand(subnet, size):
    """Multiply-adds of the toy network: convolutions that keep the size, then a linear layer on the mean."""
    width, total = 3, 0
    for block in TOY_SPACE.blocks(subnet['backbone'])[0]:
        total += width * block['out_channel'] * block['kernel_size'] ** 2 * math.prod(size)
        width = block['out_channel']
    return total + width * NUM_CLASSES


@pytest.mark.parametrize(('sizes', 'share', 'settings'), [
    ((), False, {}),
    ((), False, dict(candidates=5, tolerance=.2, image_size=[6, 10])),
    ((), False, dict(candidates=2, tolerance=1e-9, image_size=[1, 1])),
    ([(6, 6)], False, dict(tolerance=.1)),
    ([(4, 4), (6, 6), (8, 4)], False, dict(candidates=6, tolerance=.1)),
    ([(4, 4), (9, 9)], True, WIDE),
])
def test_macs_of_candidates_lie_near_those_of_the_first(sizes, share, settings):
    own, asked = rule(STRATEGY, sizes, share, **settings), settings.get('candidates', 3)
    counted_at, lengths, seen = settings.get('image_size', [64, 64]), set(), set()
    for iteration in range(60):
        passes = own.passes(1, iteration)
        assert not any(one.candidates or one.highest for one in passes[:2])
        assert [one.highest for one in passes[2:]] == [False, True]
        for one in passes[2:]:
            lengths.add(len(one.candidates))
            assert len({(c.subnet, c.image_size) for c in one.candidates}) == len(one.candidates)
            assert one.candidates[0].subnet == one.subnet
            amounts = [macs_by_hand(c.subnet, c.image_size or counted_at) for c in one.candidates]
            assert all(abs(amount - amounts[0]) <= settings.get('tolerance', .05) * amounts[0] for amount in amounts)
            for c in one.candidates:
                assert (c.iteration, c.index, c.name) == (iteration, one.index, one.name)
                assert (c.candidates, c.is_max) == ((), dict(c.subnet) == dict(own.max))
                assert c.image_size in (sizes or [None])
                assert not share or c.image_size == passes[0].image_size
                seen.add(c.image_size)
    assert max(lengths) == asked
    assert min(lengths) >= 1
    assert seen == set(sizes or [None])


def test_a_detector_is_counted_in_an_image_that_it_takes():
    model = small_models.build(small_models.retinanet())
    model.data_preprocessor.pad_size_divisor = 96
    sampling = read_attentive(None, ['best_up'], model)
    expected, own = CostModel(model, [[96, 96]]), random.Random(0)
    for _ in range(5):
        subnet = expected.space.sample(own)
        assert sampling.macs(subnet, None) == expected(subnet).macs


def test_candidates_depend_on_seed_iteration_and_pass_alone():
    numbers = [(seed, iteration) for seed in (0, 12345678901) for iteration in range(20)]
    strategy = ['best_up', 'random', 'worst_up', 'best_up']
    own, order = rule(strategy, **WIDE), random.Random(0)
    expected = {number: rule(strategy, **WIDE).passes(*number) for number in numbers[::8]}
    before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    order.shuffle(numbers)
    for number in numbers:
        passes = own.passes(*number)
        assert number not in expected or passes == expected[number]
        assert len({one.candidates for one in passes}) == 4
    after = random.getstate(), torch.get_rng_state(), np.random.get_state()[1]  # noqa: NPY002
    assert before[0] == after[0]
    assert torch.equal(before[1], after[1])
    assert (before[2] == after[2]).all()
    others = rule(['random'] * 4).passes(0, 3)  # the first candidates are plain random subnets
    assert [one.subnet for one in own.passes(0, 3)] == [one.subnet for one in others]


def small_space(depths):
    return SearchSpace({'net': ModuleSpace(dict(depth=dict(space=dict(min=[1], max=[depths], stride=1))), 1)})


def drawn(depths, macs, **settings):
    """The depths of the candidates of 200 passes in a space of a single element."""
    space, attentive = small_space(depths), AttentiveSampling(macs, **settings)
    own = SandwichRule(space, 1, ['best_up'], attentive=attentive)
    return [[c.subnet['net']['depth'][0] for c in own.passes(3, i)[0].candidates] for i in range(200)]


def test_every_subnet_can_come_up():
    depths = drawn(6, lambda subnet, size: 100 + subnet['net']['depth'][0], candidates=3, tolerance=.1)
    for place in range(3):
        counts = [sum(own[place] == depth for own in depths) for depth in range(1, 7)]
        assert min(counts) > 15  # of 33 on average
        assert sum(counts) == 200


def test_it_ends_when_few_subnets_are_near():
    calls = []

    def macs(subnet, size):
        calls.append(subnet)
        return 10 ** subnet['net']['depth'][0]

    assert all(len(own) == 1 for own in drawn(5, macs, candidates=4, tolerance=.5))
    assert len(calls) <= 200 * (4 * MAX_DRAWS_PER_CANDIDATE + 1)
    assert {tuple(sorted(own)) for own in drawn(2, lambda *_: 7, candidates=4, tolerance=.5)} == {(1, 2)}
    assert drawn(1, lambda *_: 0, candidates=2, tolerance=.5) == [[1]] * 200


def fake_pass(losses, highest=False):
    """A pass of as many candidates as losses, and what gives a candidate its loss."""
    subnets = list(small_space(len(losses)).traverse())
    candidates = tuple(SubnetPass(0, 0, 'best_up0', subnet, False) for subnet in subnets)
    by_subnet = dict(zip(subnets, losses))
    whole = SubnetPass(0, 0, 'best_up0', subnets[0], False, None, candidates, highest)
    return whole, lambda one: torch.tensor(by_subnet[one.subnet], requires_grad=True)


@pytest.mark.parametrize(('losses', 'lowest', 'highest'), [
    ([3., 1., 2.], 1, 0), ([1., 1., 1.], 0, 0), ([2., 1., 2., 1.], 1, 0), ([float('nan'), 1., 2.], 1, 2),
    ([1., float('inf'), 2.], 0, 2), ([float('nan'), float('inf')], 0, 0), ([-1., -2.], 1, 0)])
def test_choice_by_losses(losses, lowest, highest):
    for want_highest, expected in ((False, lowest), (True, highest)):
        whole, loss = fake_pass(losses, want_highest)
        assert choose(whole, ToyModel(), loss) is whole.candidates[expected]


def test_a_single_candidate_costs_no_forward_pass():
    whole, _ = fake_pass([1.])
    assert choose(whole, ToyModel(), lambda one: pytest.fail('a forward pass')) is whole.candidates[0]


class NoisyModel(ToyModel):
    """Draws random numbers of all kinds when it computes."""

    def forward(self, inputs, data_samples=None, mode='tensor'):
        random.random()
        np.random.rand()  # noqa: NPY002
        return super().forward(inputs + 3 * torch.randn_like(inputs), data_samples, mode)


def test_random_states_statistics_and_training_flags_stay():
    model = NoisyModel(drop=.5).train()
    supernet, batch = Supernet(model), train_batches()[0]
    passes = rule(['best_up', 'worst_up'], **WIDE).passes(0, 0)
    chosen = []

    def loss(candidate):
        supernet.apply(candidate.subnet)
        assert not torch.is_grad_enabled()
        assert not model.backbone.drop.training
        return sum(value for name, value in model(**batch, mode='loss').items() if 'loss' in name)

    for seed in range(6):
        torch.manual_seed(seed)
        before = random.getstate(), torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002
        buffers, weights = copy.deepcopy(dict(model.named_buffers())), copy.deepcopy(dict(model.named_parameters()))
        chosen.append([choose(one, model, loss) for one in passes])
        assert random.getstate() == before[0]
        assert torch.equal(torch.get_rng_state(), before[1])
        assert (np.random.get_state()[1] == before[2]).all()  # noqa: NPY002
        for name, value in {**dict(model.named_buffers()), **dict(model.named_parameters())}.items():
            assert torch.equal(value, {**buffers, **weights}[name]), name
        assert all(module.training for module in model.modules())
    assert any('num_batches_tracked' in name for name in buffers)
    assert all(own == chosen[0] for own in chosen)  # whatever the random state was


def test_a_failing_forward_pass_leaves_everything_too():
    model = ToyModel(drop=.5).train()
    buffers = copy.deepcopy(dict(model.named_buffers()))

    def loss(candidate):
        model(**train_batches()[0], mode='loss')
        raise RuntimeError('out of memory')

    with pytest.raises(RuntimeError, match='out of memory'):
        choose(rule(['best_up'], **WIDE).passes(0, 0)[0], model, loss)
    assert all(torch.equal(value, buffers[name]) for name, value in model.named_buffers())
    assert model.backbone.drop.training


class ChosenRecorder(PassRecorder):
    """Also sees to it that hook points are shown the chosen subnet, applied."""

    def before_subnet_forward(self, runner, subnet_pass):
        super().before_subnet_forward(runner, subnet_pass)
        assert subnet_pass.candidates == ()
        current = Supernet(runner.model).current
        assert {path: subnet_pass.subnet[path] for path in current} == dict(current)


def train(folder, model, strategy=STRATEGY, settings=WIDE, hooks=(), replay=None, optim_wrapper=None, **kwargs):
    """Train; with ``replay``, the passes of another run, which leaves nothing to choose."""
    recorder = ChosenRecorder()
    train_cfg = dict(sample_subnet_num=len(strategy), sample_strategy=strategy, attentive=settings,
                     **kwargs.pop('train_cfg', {}))
    runner = build_runner(folder, model, hooks=[recorder, *hooks], train_cfg=train_cfg,
                          optim_wrapper=dict(dict(type=RecordingOptimWrapper), **(optim_wrapper or {})), **kwargs)
    if replay is not None:
        number = len(strategy)
        runner.train_loop.rule.passes = lambda seed, iteration: replay[number * iteration:number * (iteration + 1)]
    runner.train()
    return runner, recorder.passes


def resized(batch, size):
    if size is None or tuple(size) == (6, 6):
        return batch
    # Normalised first, as the loop resizes what the preprocessor returns; it is undone, since losses_of normalises.
    own = functional.interpolate(batch['inputs'] * 2 - .5, tuple(size), mode='bicubic', antialias=True)
    return dict(batch, inputs=(own + .5) / 2)


def total_loss(state, batch, candidate):
    model = ToyModel()
    model.load_state_dict(state)
    _, losses = losses_of(model, resized(batch, candidate.image_size), candidate.subnet)
    return (losses['loss_cls'] + losses['loss_norm']).item()


@pytest.mark.parametrize('sizes', [dict(), dict(image_size_list=[[4, 4], [6, 6], [5, 5]]),
                                   dict(image_size_list=[[4, 4], [6, 6]], share_interpolation=True)])
@pytest.mark.parametrize('seed', [0, 1])
def test_the_best_and_the_worst_are_trained(tmp_path, sizes, seed):
    model = ToyModel(seed=seed)
    runner, passes = train(tmp_path, model, train_cfg=dict(max_epochs=3, **sizes), seed=seed)
    offered, places = runner.train_loop.rule, set()
    for iteration, (state, batch) in enumerate(zip(runner.optim_wrapper.states, train_batches() * 3)):
        for one in offered.passes(seed, iteration)[2:]:
            losses = [total_loss(state, batch, candidate) for candidate in one.candidates]
            place = losses.index(max(losses) if one.name == 'worst_up0' else min(losses))
            assert passes[4 * iteration + one.index] == one.candidates[place]
            places.add((one.name, place))
    assert iteration == 11
    assert len(places) > 5  # of 8: neither is always the first
    assert {name for name in runner.message_hub.log_scalars if name.endswith('_up0.loss')} == {
        'train/best_up0.loss', 'train/worst_up0.loss'}


def test_each_candidate_costs_one_forward_pass(tmp_path):
    model, calls = ToyModel(), []
    handle = model.head.register_forward_hook(lambda module, args, output: calls.append(output.requires_grad))
    runner = build_runner(tmp_path, model, train_cfg=dict(sample_strategy=STRATEGY, attentive=WIDE))
    loop = runner.train_loop
    calls.clear()  # the checks before training
    runner.train()
    handle.remove()
    expected = [False]  # the trial before training
    for iteration in range(4):
        for one in loop.rule.passes(0, iteration):
            expected += [False] * (len(one.candidates) if len(one.candidates) > 1 else 0) + [True]
    assert calls == expected


class BFloatOptimWrapper(RecordingOptimWrapper):
    """Mixed precision on the CPU; MMEngine's own wants a GPU."""

    @contextlib.contextmanager
    def optim_context(self, model):
        with OptimWrapper.optim_context(self, model), autocast(device_type='cpu', dtype=torch.bfloat16):
            yield


def distillation():
    return DistillHook(dict(head=dict(mimic_name='head', loss=dict(type='mmbignas.DenseKLLoss'))))


@pytest.mark.parametrize(('drop', 'hooks', 'kwargs'), [
    (.3, list, {}),
    (.3, lambda: [distillation(), RegularizeLargestHook()], {}),
    (0., lambda: [distillation()], dict(optim_wrapper=dict(type=BFloatOptimWrapper))),
    (.3, lambda: [RegularizeLargestHook()], dict(optim_wrapper=dict(accumulative_counts=2))),
    (0., lambda: [calibration()], dict(val_cfg=dict(calib_bn='both'))),
])
def test_all_else_is_as_if_the_chosen_had_been_given(tmp_path, drop, hooks, kwargs):
    """Statistics, random states, distillation and mixed precision: two runs end with the same state and log."""
    states, logs, replay = [], [], None
    for _ in range(2):
        model = ToyModel(drop)
        runner, passes = train(tmp_path, model, hooks=hooks(), replay=replay, train_cfg=dict(max_epochs=2), **kwargs)
        states.append(model.state_dict())
        logs.append({name: buffer.data[0].tolist() for name, buffer in runner.message_hub.log_scalars.items()
                     if 'time' not in name})
        assert replay is None or passes == replay
        replay = passes
    assert len(replay) == 32
    for name, value in states[0].items():
        assert torch.equal(value, states[1][name]), name
    assert logs[0] == logs[1]
    assert not any('distill' in name for name in logs[0]) or 'train/best_up0.loss_distill_head' in logs[0]


def test_one_entry_per_iteration(tmp_path):
    _, passes = train(tmp_path, ToyModel(), ['best_up'], train_cfg=dict(max_epochs=2))
    assert [one.name for one in passes] == ['best_up0'] * 8
    runner = build_runner(tmp_path, hooks=[recorder := ChosenRecorder()], train_cfg=dict(
        sample_subnet_num=1, sample_strategy=['max', 'worst_up', 'best_up']))
    runner.train()
    assert [one.name for one in recorder.passes] == ['max', 'worst_up0', 'best_up0', 'max']


def test_same_after_a_resume(tmp_path):
    runs = []
    for folder, ends in (('whole', [8]), ('parts', [4, 8])):
        passes = []
        for number, end in enumerate(ends):
            _, own = train(tmp_path / folder, ToyModel(seed=number), resume=number > 0, batches=4,
                           train_cfg=dict(type='mmbignas.SandwichIterTrainLoop', max_iters=end),
                           default_hooks=dict(checkpoint=dict(type='CheckpointHook', by_epoch=False, interval=4)))
            passes += own
        runs.append(passes)
    assert runs[0] == runs[1]
    assert len(runs[0]) == 32


class DetectionDataset(Dataset):
    """Two images of noise with a few boxes."""

    metainfo = dict(classes=tuple('abc'))

    def __init__(self):
        self.batch = small_models.batch()

    def __len__(self):
        return 2

    def __getitem__(self, index):
        return {name: values[index] for name, values in self.batch.items()}


def test_a_detector(tmp_path):
    """Its losses are lists with an entry a pyramid level."""
    model, dataset = small_models.scramble(small_models.build(small_models.retinanet())), DetectionDataset()
    runner, passes = train(tmp_path, model, ['max', 'best_up'], dict(candidates=3, tolerance=.3), train_dataloader=dict(
        dataset=dataset, batch_size=2, num_workers=0, sampler=dict(type='DefaultSampler', shuffle=False)))
    offered = runner.train_loop.rule.passes(0, 0)[1]
    model.load_state_dict(runner.optim_wrapper.states[0])
    totals = []
    for candidate in offered.candidates:
        _, losses = losses_of(model, dict(dataset.batch), candidate.subnet)
        totals.append(sum(sum(value) if isinstance(value, list) else value
                          for name, value in losses.items() if 'loss' in name).item())
    assert len(totals) == 3
    assert passes[1].subnet == offered.candidates[totals.index(min(totals))].subnet


def process(rank, folder):
    """Train in one of two processes, each with its own half of the data."""
    os.environ['LOCAL_RANK'] = str(rank)
    wrapper = dict(type='MMDistributedDataParallel', device_ids=None)
    hooks = [distillation(), BNCalibrationHook(12, dataloader(24))]
    runner, passes = train(folder, ToyModel(seed=rank), hooks=hooks, launcher='pytorch', batches=8, batch_size=12,
                           cfg=Config(dict(model_wrapper_cfg=wrapper)), seed=dict(seed=3, diff_rank_seed=True),
                           train_cfg=dict(max_epochs=2), train_dataloader=dataloader(96))
    found = []
    for iteration, state in enumerate(runner.optim_wrapper.states):
        batch = {name: value[rank::2] for name, value in train_batches(8, 12)[iteration % 8].items()}
        for one in runner.train_loop.rule.passes(3, iteration)[2:]:
            losses = [total_loss(state, batch, candidate) for candidate in one.candidates]
            subnets = [candidate.subnet.to_dict() for candidate in one.candidates]
            found.append((subnets, losses, passes[4 * iteration + one.index].subnet.to_dict()))
    return dict(found=found, parameters={name: value.detach() for name, value in runner.model.named_parameters()})


def test_two_processes_choose_the_same_by_the_mean_of_their_losses(tmp_path):
    ours, theirs = run_processes(process, str(tmp_path))
    split = 0
    for number, (first, second) in enumerate(zip(ours['found'], theirs['found'], strict=True)):
        assert first[0] == second[0]
        best = max if number % 2 else min
        mean = [sum(pair) / 2 for pair in zip(first[1], second[1])]
        assert first[2] == second[2] == first[0][mean.index(best(mean))]
        split += any(own[1].index(best(own[1])) != mean.index(best(mean)) for own in (first, second))
    assert len(ours['found']) == 32
    assert split > 0  # left alone, they would not have agreed
    for name, value in ours['parameters'].items():
        assert 'spare' in name or torch.equal(value, theirs['parameters'][name]), name


class NeedyModel(ToyModel):
    """Cannot be computed from an image alone."""

    def forward(self, inputs, data_samples, mode='tensor'):
        return super().forward(inputs, data_samples, mode)


PADDED = ToyModel()
PADDED.data_preprocessor.pad_size_divisor = 32


@pytest.mark.parametrize(('attentive', 'model', 'parts'), [
    (dict(candidates=1), None, ['train_cfg.attentive.candidates must be an integer >= 2, got 1']),
    (dict(tolerance=1.), None, ['train_cfg.attentive.tolerance must be a number > 0 and < 1, got 1.0']),
    (dict(candidate=3), None, ['train_cfg.attentive must be', "'candidate'", 'candidates, tolerance, image_size']),
    (3, None, ['train_cfg.attentive must be', '3', 'candidates, tolerance, image_size']),
    (dict(image_size=[64, 70]), PADDED,
     ['train_cfg.attentive.image_size must be height and width', 'multiples of 32', '[64, 70]']),
    (None, NeedyModel(), ['train_cfg.sample_strategy must be a list without best_up and worst_up', "got 'best_up'",
                          'MACs', 'cannot be counted']),
])
def test_errors_are_one_line_with_key_value_and_what_is_allowed(tmp_path, attentive, model, parts):
    train_cfg = dict(attentive=attentive, sample_strategy=['max', 'min', 'best_up', 'random'])
    loader = dataloader(12)
    loader['dataset'] = dict(type='NoSuchDataset')  # refused before data are loaded
    with pytest.raises(ConfigError) as error:
        build_runner(tmp_path, model, train_dataloader=loader, train_cfg=train_cfg).train()
    assert '\n' not in str(error.value)
    for part in parts:
        assert part in str(error.value)


@pytest.mark.parametrize('entry', ['best_up', 'worst_up'])
def test_other_loops_refuse_it(tmp_path, entry):
    runner = build_runner(tmp_path, val_cfg=dict(subnets=['max', entry]))
    with pytest.raises(ConfigError, match=rf"val_cfg\.subnets\[1\] must be max, min, middle, random, a.*'{entry}'"):
        runner.val()
