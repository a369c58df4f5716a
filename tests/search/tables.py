"""Spaces, costs and results that are written down in a line."""
from __future__ import annotations

import random
from collections.abc import Callable
from typing import Any

from mmbignas.search import Proposal, SubnetStudy
from mmbignas.space import ModuleSpace, SearchSpace, Subnet
from tests.cost.fake_costs import FakeCostModel, element


def tiny_space() -> SearchSpace:
    """(2 + 4) * 3 * 2 = 36 subnets."""
    backbone = dict(depth=element([1, 2]), out_channel=element([2, 3, 4]),
                    kernel_size=element([1, 3], strategy='block_wise'))
    head = dict(depth=element([1]), out_channel=element([4, 7]))
    return SearchSpace({'backbone': ModuleSpace(backbone, 1, key='backbone'), 'head': ModuleSpace(head, 1, key='head')})


def costs_of(space: SearchSpace) -> Callable[[Subnet], dict[str, float]]:
    """MACs and parameters."""
    cost_model = FakeCostModel(space)

    def costs(subnet: Subnet) -> dict[str, float]:
        cost = cost_model(subnet)
        return dict(macs=cost.macs, params=cost.params)

    return costs


def accuracy(number: int) -> float:
    """Any value, with all its digits."""
    return random.Random(number).random() / 3


def line_of(study: SubnetStudy, proposal: Proposal) -> dict[str, Any]:
    """What the ledger would say of a subnet."""
    return dict(number=proposal.number, subnet_settings=proposal.subnet.to_dict(), image_size=[1, 1], **proposal.costs,
                latency_ms=None, metrics=dict(accuracy=accuracy(proposal.number)), seconds=0.1, seed=0)
