"""The latency table of a model."""
from __future__ import annotations

import itertools
import random
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from mmengine.registry import MODELS
from torch import nn

from mmbignas.cost.cost_model import CostModel
from mmbignas.latency.backends import Backend
from mmbignas.latency.latency_predictor import block_key, network_settings, space_identity
from mmbignas.latency.measurement import TensorMode, image_batch, noise
from mmbignas.latency.rounds import Group, MeasuredSubnet, Part, Report, lacking, run_rounds
from mmbignas.latency.table import SETTINGS, LatencyTable, LinearFit, fit_line, percentage_error
from mmbignas.space import Subnet
from mmbignas.supernet import Supernet, subnet_config
from mmbignas.utils.rules import integer, must_be

PATIENCE = 10_000  # subnets drawn in a row without a new block, before all blocks count as known
POOL = 1000  # subnets to choose from when all blocks are to be had in few subnets
# For all rounds together.
BLOCK_SECONDS, NETWORK_SECONDS = 0.3, 3.
BURST_SECONDS = 0.002
MIN_SAMPLES = 3


def build_latency_table(path: str | Path, model_cfg: Mapping[str, Any], model: nn.Module, cost_model: CostModel,
                        backend: Backend, batch_size: int = 1, *, fitted: int = 12, held_out: int = 30, seed: int = 0,
                        report: Report = lambda lacking: None) -> LatencyTable:
    """Measure the blocks of a model and some of its subnets, or continue that; return a complete table.

    The blocks are those of ordinary networks, as :func:`~mmbignas.supernet.subnet_config` makes them.

    Args:
        path: the table's JSON file; written after each measurement. What is in it is not measured again.
        model_cfg: config of the supernet.
        model: the supernet that was built from it, also on the meta device.
        cost_model: of the supernet.
        backend: what runs the networks.
        batch_size: images in a batch.
        fitted: how many subnets, with the largest and the smallest, the prediction is fitted on.
        held_out: how many other subnets its error is determined on.
        seed: of the choice of subnets.
        report: told at the start and after each measurement how many are lacking.

    Raises:
        ConfigError: for a file that cannot be used, or too few subnets.
    """
    identity = dict(model=type(Supernet(model).model).__name__, **space_identity(cost_model),
                    image_sizes=cost_model.space.image_sizes, batch_size=integer(1).check(batch_size, 'batch_size'),
                    **backend.conditions, **{SETTINGS: network_settings(model_cfg)})
    table = LatencyTable.resume(path, identity)
    table.save()  # now rather than after the first measurements, if it cannot be written
    subnets = _choose(cost_model, fitted + held_out, seed)
    if len(subnets) <= fitted:
        raise must_be('model', f'a supernet with more than {fitted} subnets for a latency table', len(subnets))

    def build(subnet: Subnet) -> nn.Module:
        size = subnet.image_size or cost_model.space.image_sizes[0]
        return MODELS.build(subnet_config(model_cfg, model, subnet, size))

    def build_network(subnet: Subnet) -> tuple[nn.Module, tuple]:
        network, size = build(subnet), subnet.image_size or cost_model.space.image_sizes[0]
        return TensorMode(network), (image_batch(network, size, batch_size), )

    def build_blocks(subnet: Subnet, keys: Collection[str]) -> Iterator[Part]:
        network, calls = build(subnet), {block_key(call): call for call in cost_model.calls(subnet)}
        for key, call in calls.items():
            if key in keys:
                shapes = [(images * batch_size, *shape) for images, *shape in call.inputs]
                yield Part(key, call.bind(network), tuple(map(noise, shapes)))

    groups = [Group(keys, partial(build_blocks, subnet)) for subnet, keys in _cover(_draw(cost_model)).items()]
    networks = [MeasuredSubnet(name, partial(build_network, subnet)) for name, subnet in subnets.items()]
    report(lacking(table, groups, networks, backend.rounds))
    run_rounds(table, groups, networks, backend.rounds, _stopwatch(backend, BLOCK_SECONDS, BURST_SECONDS),
               _stopwatch(backend, NETWORK_SECONDS, 0.), report)
    sums = {name: sum(table.block(block_key(call)) for call in cost_model.calls(subnet))
            for name, subnet in subnets.items()}
    table.fit = _fit(table, sums, fitted)
    table.save()
    return table


def _choose(cost_model: CostModel, count: int, seed: int) -> dict[str, Subnet]:
    """The largest subnet, the smallest and others, by their numbers; fewer where the space does not have so many."""
    space, rng = cost_model.space, random.Random(seed)
    subnets = dict.fromkeys((space.max(), space.min()))
    for _ in range(100 * count):
        if len(subnets) < count:
            subnets[space.sample(rng)] = None
    return {str(space.index(subnet)): subnet for subnet in subnets}


def _draw(cost_model: CostModel) -> dict[Subnet, list[str]]:
    """Subnets that together have every block, with the keys of their blocks: the first, and any with a new block."""
    space, rng = cost_model.space, random.Random(0)
    known: set[tuple] = set()
    drawn: dict[Subnet, list[str]] = {}
    fruitless = 0
    for number in itertools.count():
        subnet = space.max() if number == 0 else space.min() if number == 1 else space.sample(rng)
        calls = cost_model.calls(subnet)
        names = {(call.path, call.values, call.inputs) for call in calls}
        fruitless = 0 if names - known else fruitless + 1
        if fruitless == PATIENCE:
            break
        known |= names
        if not fruitless or number < POOL:
            drawn[subnet] = list(dict.fromkeys(map(block_key, calls)))
    return drawn


def _cover(subnets: Mapping[Subnet, Sequence[str]]) -> dict[Subnet, list[str]]:
    """Few of the subnets that still have every block, each with those that the subnets before it lack.

    Greedily: next comes the one with the most of these.
    """
    missing = {subnet: dict.fromkeys(keys) for subnet, keys in subnets.items()}
    chosen: dict[Subnet, list[str]] = {}
    while True:
        best = max(missing, key=lambda subnet: len(missing[subnet]))
        if not missing[best]:
            return chosen
        chosen[best] = list(missing[best])
        for keys in missing.values():
            for key in chosen[best]:
                keys.pop(key, None)


def _stopwatch(backend: Backend, seconds: float, burst_seconds: float) -> Callable[[nn.Module, tuple], float]:
    def milliseconds(module: nn.Module, inputs: tuple) -> float:
        return backend.time(module, inputs, seconds=seconds / backend.rounds, min_samples=MIN_SAMPLES,
                            burst_seconds=burst_seconds).median

    return milliseconds


def _fit(table: LatencyTable, sums: Mapping[str, float], fitted: int) -> LinearFit:
    """Fit networks on the sums of their blocks; the first ``fitted`` of them, the others tell the error."""
    names = list(sums)
    inside, outside = names[:fitted], names[fitted:]
    intercept, slope = fit_line([sums[name] for name in inside], [table.network(name) for name in inside])
    error = percentage_error([intercept + slope * sums[name] for name in outside],
                             [table.network(name) for name in outside])
    return LinearFit(intercept, slope, error, inside, outside)
