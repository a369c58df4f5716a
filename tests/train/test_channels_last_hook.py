"""Channels-last: the same values, in all layers of all subnets."""
import copy
import random

import pytest
import torch
from torch import nn

from mmbignas.ops import DynamicConv2d
from mmbignas.supernet import Supernet
from mmbignas.train import ChannelsLastHook
from tests.small_models import batch, build, retinanet
from tests.toy import ToyModel, build_runner, train_batches

LAST = torch.channels_last


class Wrapped:
    def __init__(self, model):
        self.model = model


def watch(model):
    """Whether what each convolution puts out is in the format; of single pixels and channels any is."""
    seen = []
    for module in model.modules():
        if isinstance(module, DynamicConv2d):
            module.register_forward_hook(
                lambda module, args, output: seen.append(output.is_contiguous(memory_format=LAST)))
    return seen


@pytest.mark.parametrize('seed', range(3))
def test_a_detector_in_random_subnets(seed):
    torch.manual_seed(seed)
    rng = random.Random(seed)
    plain = build(retinanet()).train()
    last = copy.deepcopy(plain)
    ChannelsLastHook().before_run(Wrapped(last))
    seen = watch(last)
    data = batch((96, 128))
    for _ in range(4):
        subnet = Supernet(plain).space.sample(rng)
        losses = []
        for model in (plain, last):
            Supernet(model).apply(subnet)
            model.zero_grad()
            loss, _ = model.parse_losses(model(**model.data_preprocessor(copy.deepcopy(data), True), mode='loss'))
            loss.backward()
            losses.append(loss.item())
        assert losses[0] == pytest.approx(losses[1], rel=1e-4)
        for (name, ours), theirs in zip(plain.named_parameters(), last.parameters()):
            assert (ours.grad is None) == (theirs.grad is None), name
            if ours.grad is not None:
                greatest = ours.grad.abs().max().item()
                torch.testing.assert_close(theirs.grad, ours.grad, rtol=1e-2, atol=1e-4 * greatest + 1e-6)
    assert seen and all(seen)


def test_a_run_and_its_checkpoint(tmp_path):
    """Weights stay in the format while they are trained; a run without the hook goes on from the checkpoint."""
    kwargs = dict(val_cfg={}, default_hooks=dict(checkpoint=dict(type='CheckpointHook', interval=1)))
    with_hook = build_runner(tmp_path / 'a', hooks=[ChannelsLastHook()], **kwargs)
    with_hook.train()
    convs = [module for module in with_hook.model.modules() if isinstance(module, nn.Conv2d)]
    assert convs and all(conv.weight.is_contiguous(memory_format=LAST) for conv in convs)
    without = build_runner(tmp_path / 'b', **kwargs)
    without.train()
    for name, value in without.model.state_dict().items():
        torch.testing.assert_close(with_hook.model.state_dict()[name], value, rtol=1e-3, atol=1e-5)
    resumed = build_runner(tmp_path / 'c', resume=True, load_from=str(tmp_path / 'a/epoch_1.pth'),
                           train_cfg=dict(max_epochs=2))
    resumed.train()
    model = ToyModel()
    model.load_state_dict(resumed.model.state_dict())
    assert model(train_batches()[0]['inputs']).isfinite().all()
