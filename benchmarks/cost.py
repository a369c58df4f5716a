"""What it takes to draw 10,000 subnets and to know their cost.

    python benchmarks/cost.py

RetinaNet-R18 at 768x1344, one core, no weights. Ours: drawing 10,000 subnets by the space's strategies and computing
MACs, operations and parameters of each, tables included, which are filled on the way. Beside it, per subnet, the two
ways in which other systems get there: a forward pass on meta tensors (with the counting hooks of our own fallback),
and MMEngine's complexity analysis of the exported network; and a plain forward pass on real tensors, the least that
measuring one by running it can take.
"""
from __future__ import annotations

import random
from collections.abc import Callable

import common
import torch
from mmengine.analysis import FlopAnalyzer

from mmbignas.cost import CostModel
from mmbignas.space import Subnet
from mmbignas.supernet import Supernet, subnet_config

SIZE, SUBNETS, PEERS, ROUNDS = (768, 1344), 10_000, 5, 5
BAR_SECONDS = 1.


def main() -> None:
    """Measure."""
    config = common.Config.fromfile(common.DETECTOR_CONFIG).model
    with torch.device('meta'):
        model = common.build_detector()
    space = Supernet(model).space

    def draw_and_cost() -> None:
        cost_model, rng = CostModel(model, [SIZE]), random.Random(0)
        for _ in range(SUBNETS):
            cost_model(cost_model.space.sample(rng))

    def draw() -> None:
        rng = random.Random(0)
        for _ in range(SUBNETS):
            space.sample(rng)

    print(f'{SUBNETS} subnets of {space.size:,}')
    times = common.interleave({'draw': lambda: common.seconds(draw),
                               'draw and cost': lambda: common.seconds(draw_and_cost)}, ROUNDS)
    seconds = {name: common.statistics.median(values) for name, values in times.items()}
    tables = common.statistics.median(common.seconds(lambda: CostModel(model, [SIZE])) for _ in range(3))

    real, cost_model, rng = common.build_detector().eval(), CostModel(model, [SIZE]), random.Random(1)
    supernet, image = Supernet(real), torch.rand(1, 3, *SIZE)

    def meta_forward(subnet: Subnet) -> None:
        cost_model._as_a_whole(subnet)

    def analysis(subnet: Subnet) -> None:
        plain = common.build_detector(subnet_config(config, real, subnet)).eval()
        analyzer = FlopAnalyzer(plain, image)
        assert analyzer.total() == cost_model(subnet).ops

    @torch.inference_mode()
    def real_forward(subnet: Subnet) -> None:
        supernet.apply(subnet)
        real(image, mode='tensor')

    peers: dict[str, Callable[[Subnet], None]] = {
        'forward pass on meta tensors': meta_forward, "export and MMEngine's analysis": analysis,
        'forward pass on real tensors': real_forward}
    subnets = [space.sample(rng) for _ in range(PEERS)]
    per_subnet = {'drawing': seconds['draw'] / SUBNETS, 'drawing and cost': seconds['draw and cost'] / SUBNETS}
    for name, peer in peers.items():
        peer(subnets[0])
        per_subnet[name] = common.statistics.median(common.seconds(lambda subnet=subnet: peer(subnet))  # noqa: B023
                                                    for subnet in subnets)
    ours = per_subnet['drawing and cost']
    for name, value in per_subnet.items():
        print(f'{name:50} {value * 1e6:12,.0f} us a subnet  {value / ours:10,.1f} times')
    print(f'of the {seconds["draw and cost"]:.2f} s, setting up took {tables:.2f} s')
    common.report('cost', [common.figure(f'{SUBNETS} subnets drawn and costed', seconds['draw and cost'], BAR_SECONDS,
                                         'seconds')],
                  microseconds_a_subnet={name: round(value * 1e6, 1) for name, value in per_subnet.items()})


if __name__ == '__main__':
    main()
