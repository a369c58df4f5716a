"""What the benchmarks of overhead share: passes of a supernet beside those of plain twins.

The floor is the plain twin of each subnet: an ordinary network of plain torch layers, with the weights that
``subnet_state_dict`` cuts out. Both sides preprocess once, outside of the measured time.

Where the gradients begin matters, since adding to a gradient costs more than keeping a new one. Both sides always
begin alike:

- *A subnet* alone: without gradients (``zero_grad(set_to_none=True)``, not timed).
- *The sandwich*, as in training: the first pass, of max, begins without gradients, and the other three add theirs. The
  supernet adds in its full weights. The floor is four twins, of which max begins without gradients and the others
  with their own, so it too makes three additions; they are the price of summing four losses, not of slicing.

Applying a subnet counts, the optimizer step does not. A pass's ratio is the median over the rounds of the ratio within
a round, short passes having more rounds; that of the sandwich is the mean of its passes' ratios, weighted by the
floor's seconds.
Before anything is timed, the losses are compared: they must be equal, to the last bit.
"""
from __future__ import annotations

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import common
from torch import Tensor, nn

from mmbignas.space import Subnet
from mmbignas.supernet import Supernet

SANDWICH_ROUNDS, SECONDS_PER_SUBNET = 6, 10.
SIDES = ('plain', 'supernet')
Loss = Callable[[nn.Module], Tensor]


def detector_loss(data: Mapping) -> Loss:
    """The detector's training loss."""
    return lambda model: model.parse_losses(model(**data, mode='loss'))[0]


def sandwich(supernet: Supernet) -> dict[str, Subnet]:
    """Name -> subnet, of the sandwich rule: the largest, the smallest and two random ones of a fixed seed."""
    rng = random.Random(0)
    return dict(max=supernet.space.max(), min=supernet.space.min(), random0=supernet.space.sample(rng),
                random1=supernet.space.sample(rng))


def check_losses(loss: Loss, supernet: Supernet, subnets: Mapping[str, Subnet], twins: Mapping[str, nn.Module]) -> None:
    """Make sure that supernet and twins compute the same."""
    for key, subnet in subnets.items():
        supernet.apply(subnet)
        ours, floor = loss(supernet.model).item(), loss(twins[key]).item()
        if ours != floor:
            raise RuntimeError(f'{key}: the loss is {ours} in the supernet and {floor} in the plain twin')


def measure(name: str, loss: Loss, supernet: Supernet, subnets: Mapping[str, Subnet], twins: Mapping[str, nn.Module],
            bars: Mapping[str, float]) -> tuple[list[dict], dict[str, list[float]]]:
    """Measure one network.

    Args:
        name: of the network.
        loss: what is differentiated.
        supernet: the supernet.
        subnets: name -> subnet; the first is the largest.
        twins: name -> its plain twin.
        bars: of the ratios: ``sandwich``, ``subnet`` and, for some subnets, their names.

    Returns:
        tuple: the figures, and the median seconds of each case.
    """
    largest = next(iter(subnets))

    def one_pass(model: nn.Module, subnet: Subnet | None = None, fresh: bool = True) -> float:
        if fresh:
            model.zero_grad(set_to_none=True)

        def run() -> None:
            if subnet is not None:
                supernet.apply(subnet)
            loss(model).backward()
        return common.seconds(run)

    def cases(key: str, fresh: bool) -> dict[str, Callable[[], float]]:
        return dict(plain=partial(one_pass, twins[key], fresh=fresh),
                    supernet=partial(one_pass, supernet.model, subnets[key], fresh=fresh))

    # Both sandwiches go through their passes side by side, so that the two times of a ratio are taken close together.
    # Later passes find gradients, so whether they are the supernet's latest or those of a round before is the same.
    sandwich = common.interleave({(key, side): case for key in subnets
                                  for side, case in cases(key, fresh=key == largest).items()}, SANDWICH_ROUNDS)
    times = {largest: {side: sandwich[largest, side] for side in SIDES}}
    for key in subnets:
        if key != largest:
            duration = sum(case() for case in cases(key, fresh=True).values())
            times[key] = common.interleave(cases(key, fresh=True), round(SECONDS_PER_SUBNET / duration))
    passes = [summary({side: sandwich[key, side] for side in SIDES}) for key in subnets]
    plain = sum(seconds for seconds, _, _ in passes)
    rows = {'sandwich': (plain, sum(seconds for _, seconds, _ in passes),
                         sum(seconds * ratio for seconds, _, ratio in passes) / plain)}
    rows.update({key: summary(sides) for key, sides in times.items()})
    figures = []
    print(f'\n{name:10}    plain  supernet  ratio')
    for key, (plain, ours, ratio) in rows.items():
        print(f'{key:10}  {plain:6.3f}s   {ours:6.3f}s  {ratio:.3f}', flush=True)
        figures.append(common.figure(f'{name} {key}', ratio, bars.get(key, bars['subnet'])))
    return figures, {f'{name} {key}': [round(plain, 4), round(ours, 4)] for key, (plain, ours, _) in rows.items()}


def summary(times: Mapping[str, Sequence[float]]) -> tuple[float, float, float]:
    """Median seconds of both sides and the median ratio."""
    plain, ours = (times[side] for side in SIDES)
    return common.statistics.median(plain), common.statistics.median(ours), common.median_ratio(ours, plain)
