"""The synchronised dynamic BN in two processes against torch's BN on the joined batch."""
import pytest
import torch
from torch import nn
from torch.nn.parallel import DistributedDataParallel

from mmbignas.ops import DynamicSyncBatchNorm2d
from tests.distributed import run_processes

CASES = [(8, (3, 2), 0.1), (5, (1, 4), 0.1), (5, (1, 1), None), (8, (4, 1), 0.3)]  # width, images a process, momentum


def batch(width, counts):
    generator = torch.Generator().manual_seed(width + sum(counts))
    return torch.randn(sum(counts), width, 3, 5, generator=generator) * 2 + 3


def norm_layer(cls, momentum, dtype=torch.float32):
    generator = torch.Generator().manual_seed(1)
    norm = cls(8, momentum=momentum)
    with torch.no_grad():
        for tensor in (norm.weight, norm.bias, norm.running_mean, norm.running_var):
            tensor += torch.rand(8, generator=generator)
    return norm.to(dtype)


def loss_of(output):
    """A loss that is a sum over samples and whose gradient does not vanish in the normalisation."""
    return (output * output * output.detach().cos()).sum()


def run(rank):
    results = []
    for width, counts, momentum in CASES:
        x = batch(width, counts).split(counts)[rank].clone().requires_grad_()
        norm = norm_layer(DynamicSyncBatchNorm2d, momentum)
        for _ in range(2):
            output = norm(x)
        loss_of(output).backward()
        alone = norm_layer(DynamicSyncBatchNorm2d, momentum)
        alone.synchronised = False
        evaluated = norm_layer(DynamicSyncBatchNorm2d, momentum).eval()(x)
        results.append(dict(output=output.detach(), input_grad=x.grad, grads=[norm.weight.grad, norm.bias.grad],
                            state=norm.state_dict(), alone=alone(x).detach(), evaluated=evaluated.detach()))
    wrapped = DistributedDataParallel(norm_layer(DynamicSyncBatchNorm2d, 0.1))
    loss_of(wrapped(batch(8, (3, 2)).split((3, 2))[rank])).backward()
    results.append(dict(grads=[wrapped.module.weight.grad, wrapped.module.bias.grad]))
    return results


@pytest.fixture(scope='module')
def results():
    return run_processes(run)


@pytest.mark.parametrize('index', range(len(CASES)))
def test_equals_norm_of_joined_batch(results, index):
    width, counts, momentum = CASES[index]
    x = batch(width, counts).double().requires_grad_()
    full = norm_layer(nn.BatchNorm2d, momentum, torch.double)
    joined = nn.BatchNorm2d(width, momentum=momentum).double()
    joined.load_state_dict({key: value[:width] if value.dim() else value for key, value in full.state_dict().items()})
    for _ in range(2):
        output = joined(x)
    loss_of(output).backward()
    first, second = (process[index] for process in results)
    close = dict(rtol=1e-5, atol=1e-5, check_dtype=False)
    torch.testing.assert_close(torch.cat([first['output'], second['output']]), output.detach(), **close)
    torch.testing.assert_close(torch.cat([first['input_grad'], second['input_grad']]), x.grad, **close)
    for ours, theirs, parameter in zip(first['grads'], second['grads'], (joined.weight, joined.bias)):
        torch.testing.assert_close((ours + theirs)[:width], parameter.grad, rtol=1e-5, atol=1e-4, check_dtype=False)
        assert not ours[width:].any()
    for name, value in joined.state_dict().items():
        assert torch.equal(first['state'][name], second['state'][name])
        kept = first['state'][name]
        torch.testing.assert_close(kept[:width] if kept.dim() else kept, value, **close)
        if kept.dim():
            torch.testing.assert_close(kept[width:], full.state_dict()[name][width:], **close)


@pytest.mark.parametrize('index', range(len(CASES)))
def test_alone_and_in_eval_mode(results, index):
    width, counts, momentum = CASES[index]
    for x, process in zip(batch(width, counts).split(counts), results):
        single = DynamicSyncBatchNorm2d(8, momentum=momentum)
        single.load_state_dict(norm_layer(nn.BatchNorm2d, momentum).state_dict())
        torch.testing.assert_close(process[index]['alone'], single(x).detach())
        expected = norm_layer(DynamicSyncBatchNorm2d, momentum).eval()(x).detach()
        torch.testing.assert_close(process[index]['evaluated'], expected)


def test_gradients_under_ddp_are_the_mean(results):
    first, second = (process[-1]['grads'] for process in results)
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(first, second))
    norm = norm_layer(nn.BatchNorm2d, 0.1, torch.double)
    loss_of(norm(batch(8, (3, 2)).double())).backward()
    torch.testing.assert_close(first[0] * 2, norm.weight.grad, rtol=1e-5, atol=1e-4, check_dtype=False)
    torch.testing.assert_close(first[1] * 2, norm.bias.grad, rtol=1e-5, atol=1e-4, check_dtype=False)
