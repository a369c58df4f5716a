"""A cost model that is written down in a line, over spaces small enough to list."""
from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from mmbignas.cost import Cost, ModuleCost
from mmbignas.space import ModuleSpace, SearchSpace, Subnet

SIZES = ((32, 32), (32, 48))


def element(*choices: Sequence[int], strategy: str = 'stage_wise') -> dict[str, Any]:
    """An element with these choices in each stage."""
    return dict(space=dict(dynamic_range=[list(own) for own in choices]), sample_strategy=strategy)


def small_space(image_sizes: Sequence[Sequence[int]] = ()) -> SearchSpace:
    """Two modules, one with kernels of its own in each block: (4 + 8) * 2 * 3 = 72 subnets for each image size."""
    backbone = dict(depth=element([1, 2], [1]), out_channel=element([2, 3], [5]),
                    kernel_size=element([1, 3], [1, 3], strategy='block_wise'))
    head = dict(depth=element([1]), out_channel=element([4, 7, 9]))
    return SearchSpace({'backbone': ModuleSpace(backbone, 2, key='backbone'), 'head': ModuleSpace(head, 1, key='head')},
                       image_sizes)


class FakeCostModel:
    """As many MACs a pixel as the values of a subnet say, summed over the blocks."""

    def __init__(self, space: SearchSpace) -> None:
        self.space, self.calls = space, 0

    def __call__(self, subnet: Subnet) -> Cost:
        self.calls += 1
        height, width = subnet.image_size or (1, 1)
        modules = {path: ModuleCost(macs := height * width * per_pixel(elements), macs + 1, 10 * per_pixel(elements))
                   for path, elements in subnet.items()}
        return Cost(*(sum(amounts) for amounts in zip(*modules.values())), modules)


def per_pixel(elements: Any) -> int:
    """A number that grows with every element."""
    depth, widths = elements['depth'], elements['out_channel']
    kernels = elements.get('kernel_size') or [1] * sum(depth)
    stages = [stage for stage, count in enumerate(depth) for _ in range(count)]
    return sum(widths[stage] * kernel**2 for stage, kernel in zip(stages, kernels)) + 100
