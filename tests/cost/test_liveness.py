"""Which operations the outputs of a forward pass need, against torch.jit's own dead-code elimination."""
from __future__ import annotations

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas.cost.liveness import both, either
from mmbignas.cost.operation_counter import NeededCounter

SIZE = 4


def unused(x: Tensor, weight: Tensor) -> Tensor:
    F.linear(x, weight)
    return F.linear(x, weight) + 1


def chain(x: Tensor, weight: Tensor) -> Tensor:
    y = F.linear(F.linear(x, weight).relu(), weight)
    y = y * 2  # goes nowhere
    return x + 1


def in_place(x: Tensor, weight: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y += F.linear(x, weight)
    return y


def in_a_view(x: Tensor, weight: Tensor) -> Tensor:
    y = torch.zeros_like(x)
    y[:2] = F.linear(x, weight)[:2]
    y[2:].add_(F.linear(x, weight)[2:])
    return y


def in_place_for_nothing(x: Tensor, weight: Tensor) -> Tensor:
    y = F.relu(F.linear(x, weight), inplace=True)
    y = F.relu(y, inplace=True)
    return F.linear(x, weight)


def several(x: Tensor, weight: Tensor) -> tuple[Tensor, list[Tensor]]:
    one, two = F.linear(x, weight).chunk(2, 0)
    return one, [F.linear(x, weight) + 1]


class Net(nn.Module):
    """A function of an image and a weight."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function, self.weight = function, nn.Parameter(torch.randn(SIZE, SIZE))

    def forward(self, x):
        return self.function(x, self.weight)


@pytest.mark.parametrize('function', [unused, chain, in_place, in_a_view, in_place_for_nothing, several])
@pytest.mark.parametrize('device', ['cpu', 'meta'])
def test_what_is_needed_is_what_the_analysis_counts(function, device) -> None:
    net = Net(function)
    analyzer = FlopAnalyzer(net, torch.randn(SIZE, SIZE)).unsupported_ops_warnings(False)
    net, x = net.to(device), torch.zeros(SIZE, SIZE, device=device)
    with torch.no_grad(), NeededCounter(lambda: 'here') as counter:
        outputs = net(x)
    counted = counter.counted(outputs)
    assert {group for group, _, _ in counted} <= {'here'}
    assert sum(ops for _, _, ops in counted) == analyzer.total()


def test_conditions() -> None:
    one, other = {'a': 3, 'b': 1}, {'a': 2, 'c': 5}
    for depths in ({'a': a, 'b': b, 'c': c} for a in range(1, 6) for b in range(1, 4) for c in range(4, 8)):

        def holds(condition, depths=depths):
            return all(number < depths[run] for run, number in condition.items())

        assert holds(both(one, other)) == (holds(one) and holds(other))
        if holds(one) or holds(other):  # what cannot be expressed counts as needed
            assert holds(either(one, other))
    assert either({'a': 3}, {'a': 2}) == {'a': 2}
