"""Three processes that have to do the same: what differs in one of them is found in the same iteration, and named."""
import os

import pytest
import torch
from mmengine.config import Config
from mmengine.hooks import Hook
from torch import nn

from mmbignas.errors import ConfigError
from mmbignas.train import SameOnAllRanksHook
from mmbignas.train.watch.same_on_all_ranks_hook import weight_sums
from tests.distributed import run_processes
from tests.toy import PassRecorder, ToyModel, build_runner, dataloader


class Tampering(Hook):
    """Lets ``change`` do something to the Runner of one process, before an iteration is compared or after."""

    priority = 'VERY_HIGH'

    def __init__(self, change, iteration):
        self.change, self.iteration = change, iteration

    def before_train_iter(self, runner, batch_idx, data_batch=None):
        if runner.iter == self.iteration:
            self.change(runner)


def other_seed(runner):
    assert runner.train_loop.seed == 0  # all processes agree on it, before the first iteration
    runner.train_loop._seed = 77


def other_weight(runner):
    with torch.no_grad():
        weight = runner.model.module.backbone.blocks[1][0].weight
        weight[5, 6, 1, 1] = torch.nextafter(weight[5, 6, 1, 1], torch.tensor(9.))


def other_iteration(runner):
    runner.train_loop._iter += 1


CASES = dict(  # what happens to which rank before which iteration, the hooks, and what is said
    clean=(None, 0, 0, [SameOnAllRanksHook(1)], None),
    seed=(other_seed, 1, 3, [SameOnAllRanksHook(2)], 'iteration 4: rank 1 trains other subnets than rank 0 (of 3)'),
    weight=(other_weight, 2, 2, [SameOnAllRanksHook(1)],
            'iteration 2: rank 2 has other weights in backbone.blocks.1.0.weight than rank 0 (of 3)'),
    weight_of_first=(other_weight, 0, 2, [SameOnAllRanksHook(1)], 'iteration 2: rank 0 has other weights in backbone.'
                     'blocks.1.0.weight than rank 1 (of 3)'),
    iteration=(other_iteration, 1, 0, [], 'rank 1 is in another iteration than rank 0'),
    by_default=(other_seed, 2, 0, [], 'iteration 0: rank 2 trains other subnets than rank 0 (of 3)'),
    weights_left_alone=(other_weight, 2, 2, [SameOnAllRanksHook(1, weights=False)], None),
    too_late=(other_weight, 2, 1, [SameOnAllRanksHook(100)], None))


def run(rank, folder, case):
    change, where, iteration, hooks, message = CASES[case]
    passes = PassRecorder()
    hooks = [passes, *hooks, *([Tampering(change, iteration)] if change and rank == where else [])]
    runner = build_runner(
        folder, ToyModel(), hooks=hooks, launcher='pytorch', train_dataloader=dataloader(18 * 3, 3),
        cfg=Config(dict(model_wrapper_cfg=dict(type='MMDistributedDataParallel', device_ids=None))))
    error = None
    try:
        runner.train()
    except RuntimeError as caught:
        error = str(caught)
    return dict(error=error, trained=len(passes.passes),
                hooks=[hook.interval for hook in runner.hooks if isinstance(hook, SameOnAllRanksHook)])


def everything(rank, folder):
    os.environ['LOCAL_RANK'] = str(rank)
    return {case: run(rank, folder, case) for case in CASES}


@pytest.fixture(scope='module')
def results(tmp_path_factory):
    return run_processes(everything, str(tmp_path_factory.mktemp('run')), world_size=3)


@pytest.mark.parametrize('case', CASES)
def test_who_differs_is_named_by_all(results, case):
    message = CASES[case][-1]
    for rank, process in enumerate(results):
        own = process[case]
        assert own['hooks'] == [hook.interval for hook in CASES[case][3]] or own['hooks'] == [100]
        if message is None:
            assert own == dict(error=None, trained=6 * 4, hooks=own['hooks'])
            continue
        assert message in own['error']
        if message.startswith('iteration'):
            assert own['trained'] == 4 * int(message.split()[1].rstrip(':')), rank  # nothing after it was found


@pytest.mark.parametrize(('dtype', 'integer'), [(torch.float64, torch.int64), (torch.float32, torch.int32),
                                                (torch.bfloat16, torch.int16)])
def test_sums_tell_the_last_bit(dtype, integer):
    model = nn.Sequential(nn.Linear(3, 4), nn.Conv2d(2, 3, 3).to(memory_format=torch.channels_last)).to(dtype)
    names, sums = weight_sums(model)
    assert names == ['0.weight', '0.bias', '1.weight', '1.bias']
    for parameter in model.parameters():
        bits = parameter.data.view(integer)
        first = (0, ) * bits.dim()
        bits[first] ^= 1
        assert (weight_sums(model)[1] != sums).tolist() == [own is parameter for own in model.parameters()]
        bits[first] ^= 1
        assert torch.equal(weight_sums(model)[1], sums)


def test_one_process_has_nothing_to_compare(tmp_path):
    runner = build_runner(tmp_path, hooks=[Tampering(other_seed, 1), SameOnAllRanksHook(1)])
    runner.train()
    assert runner.iter == 4
    runner = build_runner(tmp_path)
    runner.train()
    assert not any(isinstance(hook, SameOnAllRanksHook) for hook in runner.hooks)


@pytest.mark.parametrize(('kwargs', 'message'), [
    (dict(interval=0), 'SameOnAllRanksHook.interval must be an integer >= 1, got 0'),
    (dict(weights='no'), "SameOnAllRanksHook.weights must be True or False, got 'no'")])
def test_bad_values(kwargs, message):
    with pytest.raises(ConfigError, match=message):
        SameOnAllRanksHook(**kwargs)
