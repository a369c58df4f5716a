"""How well the latency of subnets is predicted from measured blocks.

    python benchmarks/latency_predictor.py

RetinaNet-R18 on one image of 256x448, PyTorch on one thread of the CPU. The table is built as ``tools/latency.py
table`` builds it: all blocks that subnets of the space have, 12 subnets for the fit, and 30 others, which the fit has
not seen, for the error. Its bar is 5 percent, median. Beside the seconds that the table takes stands what one subnet
takes to be measured, with everything that a search would have to do for each: write its config, build it, measure it.
"""
from __future__ import annotations

import tempfile
import time
from pathlib import Path

import common
import torch
from mmengine.registry import init_default_scope

from mmbignas.cost import CostModel
from mmbignas.latency import LatencyPredictor, build_backend, build_latency_table, measure_latency
from mmbignas.supernet import subnet_config

IMAGE_SIZE = (256, 448)
BAR = 5.
PREDICTIONS = 1000


def main() -> None:
    """Build a table and report its error."""
    cfg = common.Config.fromfile(common.DETECTOR_CONFIG).model
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = common.MODELS.build(cfg)
    cost_model = CostModel(model, [IMAGE_SIZE])
    with tempfile.TemporaryDirectory() as folder:
        print('drawing subnets until all blocks are known', flush=True)
        begin = time.perf_counter()
        table = build_latency_table(Path(folder, 'table.json'), cfg, model, cost_model, build_backend('torch'),
                                    report=progress)
        table_seconds = time.perf_counter() - begin
    space, fit = cost_model.space, table.fit
    begin = time.perf_counter()
    measure_latency(common.MODELS.build(subnet_config(cfg, model, space.middle())), IMAGE_SIZE)
    subnet_seconds = time.perf_counter() - begin
    predictor = LatencyPredictor(table, cost_model)
    errors = {name: abs(predictor(space[int(name)]) / table.network(name) - 1) * 100 for name in fit.held_out}
    subnets = list(space.traverse(PREDICTIONS))
    begin = time.perf_counter()
    for subnet in subnets:
        predictor(subnet)
    prediction = (time.perf_counter() - begin) / len(subnets)
    latencies = sorted(table.network(name) for name in table.networks)
    print(f'\ntable: {table_seconds:.0f} s for {len(table.times)} blocks and {len(table.networks)} subnets of '
          f'{latencies[0]:.0f} to {latencies[-1]:.0f} ms; one subnet: {subnet_seconds:.1f} s measured, '
          f'{prediction * 1e6:.0f} us predicted\nlatency = {fit.intercept:.2f} ms + {fit.slope:.4f} * blocks; error on '
          f'{len(errors)} held-out subnets: median {fit.error:.2f} %, worst {max(errors.values()):.2f} %')
    common.report('latency_predictor', [common.figure('held-out median error', fit.error, BAR, 'percent')],
                  worst_percent=round(max(errors.values()), 2), table_seconds=round(table_seconds, 1),
                  subnet_seconds=round(subnet_seconds, 2), prediction_microseconds=round(prediction * 1e6, 1))


def progress(lacking: int) -> None:
    """Print now and then how far the table is."""
    if lacking % 20 == 0:
        print(f'\r{lacking:4} measurements to go', end='', flush=True)


if __name__ == '__main__':
    main()
