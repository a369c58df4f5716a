"""Fill a latency table, round by round."""
from __future__ import annotations

import hashlib
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from typing import Any, NamedTuple

from mmengine.utils import apply_to
from torch import Tensor, nn

from mmbignas.latency.table import LatencyTable

Stopwatch = Callable[[nn.Module, tuple], float]  # milliseconds of a module on its inputs
Report = Callable[[int], Any]


class Part(NamedTuple):
    """A block to be measured: its name in the table, a torch module, and its arguments, nested tensors."""

    key: str
    module: nn.Module
    inputs: tuple


class Group(NamedTuple):
    """The keys of blocks that are built together, such as those of one network, and what builds those of some keys."""

    keys: Sequence[str]
    build: Callable[[Collection[str]], Iterator[Part]]


class MeasuredSubnet(NamedTuple):
    """A whole network to be measured: its name in the table, and what builds it, with its inputs."""

    name: str
    build: Callable[[], tuple[nn.Module, tuple]]


def signature(module: nn.Module, inputs: tuple) -> str:
    """A name for what is computed: equal for modules of the same layers on inputs of the same shapes."""
    shapes = apply_to(inputs, lambda item: isinstance(item, Tensor), lambda tensor: tuple(tensor.shape))
    # Classes and plain attributes too: a repr may leave out what a forward pass depends on.
    parts = [(type(part).__module__, type(part).__qualname__,
              {name: value for name, value in vars(part).items() if isinstance(value, (int, float, str, tuple))})
             for part in module.modules()]
    return hashlib.sha256(f'{module!r}{parts}{shapes}'.encode()).hexdigest()[:16]


def run_rounds(table: LatencyTable, groups: Sequence[Group], networks: Sequence[MeasuredSubnet], rounds: int,
               time_block: Stopwatch, time_network: Stopwatch, report: Report = lambda lacking: None) -> None:
    """Measure whatever a table lacks of the blocks and of the whole networks.

    Everything is measured once in each round, in random order, so that a phase in which the machine is busy spoils one
    measurement of each rather than all of some, and does not hit related ones together. After each measurement the
    table is written, and ``report`` is told how many are lacking.
    """

    def written() -> None:
        table.save()
        report(lacking(table, groups, networks, rounds))

    for number in range(rounds):
        work: list[Group | MeasuredSubnet] = [*groups, *networks]
        random.Random(number).shuffle(work)
        for item in work:
            if isinstance(item, MeasuredSubnet):
                if len(table.networks.get(item.name, ())) <= number:
                    milliseconds = time_network(*item.build())
                    table.networks.setdefault(item.name, []).append(milliseconds)
                    written()
                continue
            keys = {key for key in item.keys if table.rounds_of_block(key) <= number}
            for key, module, inputs in item.build(keys) if keys else ():
                name = signature(module, inputs)
                if table.blocks.get(key) == name and table.rounds_of_block(key) > number:
                    continue  # an equal block was measured a moment ago
                table.blocks[key] = name
                if table.rounds_of_block(key) <= number:
                    table.times.setdefault(name, []).append(time_block(module, inputs))
                written()


def lacking(table: LatencyTable, groups: Sequence[Group], networks: Sequence[MeasuredSubnet], rounds: int) -> int:
    """How many measurements a table lacks; blocks that compute the same count each until one of them is measured."""
    done = [table.rounds_of_block(key) for group in groups for key in group.keys]
    done += [len(table.networks.get(network.name, ())) for network in networks]
    return sum(max(rounds - count, 0) for count in done)
