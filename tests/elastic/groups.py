"""Whether a plan has the groups that a small network should have, by permutation and by cutting."""
from __future__ import annotations

import copy
import random
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from mmbignas.elastic import Plan, cut_arguments, cut_network, cut_state
from mmbignas.elastic.parts import Parts
from mmbignas.elastic.self_check import difference


def check_groups(model: nn.Module, plan: Plan, batch: Mapping[str, Any], sizes: Sequence[int]) -> None:
    """Assert that the groups have these sizes, and that random subnets equal the networks cut out of them."""
    assert sorted(group.size for group in plan.groups.values()) == sorted(sizes), plan.frozen
    assert difference(model, plan, batch) < 1e-10
    elastic, rng = copy.deepcopy(model), random.Random(0)
    parts = Parts(elastic, plan)
    x = torch.randn(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(elastic(x), model(x))
        for _ in range(3):
            parts.apply_widths({group: rng.randint(1, own.size) for group, own in plan.groups.items()})
            cut = cut_network(copy.deepcopy(model), **cut_arguments(elastic, parts))
            cut.load_state_dict(cut_state(elastic, parts), strict=True)
            assert torch.equal(elastic(x), cut(x))
