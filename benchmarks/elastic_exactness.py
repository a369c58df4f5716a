"""Whether an elastic network and what is said of it are exact, over many random subnets.

    python benchmarks/elastic_exactness.py [--subnets 200] [mmdet/rtmdet ...]

For each family (see ``zoo_families.py``) random subnets are drawn, with a gene per group of channels and per run of
blocks. The supernet with a subnet applied must return what the network that is cut out for it returns, bit for bit,
and ``CostModel`` must say of it what MMEngine's analysis says of the cut network, to the last digit. The value is the
number of subnets of which either does not hold.
"""
from __future__ import annotations

import argparse
import copy
import logging
import random
import time

import common
import torch
from mmengine.analysis import FlopAnalyzer
from zoo_check import WIDTH, cut_network_of, same, size_of, stock_config
from zoo_families import FAMILIES

from mmbignas.cost import CostModel
from mmbignas.elastic import make_supernet
from mmbignas.elastic.builder import build_stock
from mmbignas.elastic.planning import traced
from mmbignas.elastic.verification import verified
from mmbignas.supernet import Supernet

LISTED = ('mmdet/rtmdet', 'mmdet/yolox', 'mmdet/fcos', 'mmdet/retinanet', 'mmpretrain/densenet',
          'mmpretrain/mobilenet_v2', 'mmpretrain/efficientnet', 'mmpretrain/hrnet')
PROGRESS = 20


def wrong(family: str, count: int) -> tuple[int, int]:
    """Of how many random subnets of a family the outputs, and of how many the costs, are not exact."""
    torch.manual_seed(0)
    config = stock_config(family)
    of = config.pop('type')
    stock = build_stock(of, config)
    batch, found = traced(stock)
    plan = verified(stock, found, batch)
    model = make_supernet(copy.deepcopy(stock), plan, WIDTH, 'residual' if plan.runs else None, 'group')
    image = batch['inputs'][:1]
    supernet, cost, rng = Supernet(model), CostModel(model, [image.shape[2:]]), random.Random(0)
    outputs = costs = 0
    begin = time.perf_counter()
    for number in range(1, count + 1):
        subnet = supernet.apply(cost.space.sample(rng))
        cut = cut_network_of(model, of, config)
        outputs += not same(model, cut, batch)
        analyzer, said = FlopAnalyzer(cut.eval(), image), cost(subnet)
        costs += (said.ops, said.params) != (analyzer.total(), size_of(cut))
        if number % PROGRESS == 0:
            left = (time.perf_counter() - begin) / number * (count - number)
            print(f'\r{family}: {number} of {count}, {outputs} outputs and {costs} costs wrong; {left:.0f} s left ',
                  end='', flush=True)
    print()
    return outputs, costs


def main() -> None:
    """Check the families that the command line names, or the listed ones."""
    parser = argparse.ArgumentParser(description=(__doc__ or '').splitlines()[0])
    parser.add_argument('families', nargs='*', default=LISTED, metavar='FAMILY', help=f'default: {" ".join(LISTED)}')
    parser.add_argument('--subnets', type=int, default=200, help='of each family (default: 200)')
    args = parser.parse_args()
    logging.disable(logging.WARNING)
    unknown = set(args.families) - set(FAMILIES)
    if unknown:
        parser.error(f'FAMILY must be one of {", ".join(FAMILIES)}, got {", ".join(unknown)}')
    found = {family: wrong(family, args.subnets) for family in args.families}
    common.report('elastic_exactness', [common.figure('subnets that are not exact', sum(map(sum, found.values())), 0,
                                                      'subnets')], wrong_outputs_and_costs=found, subnets=args.subnets)


if __name__ == '__main__':
    main()
