"""What BN calibration costs more than the evaluation of the same images.

    python benchmarks/bn_calibration.py

The floor is the forward pass of the same batches in eval mode, with the data preprocessor, in mode ``tensor`` and
without gradients: what any evaluation has to do before it decodes boxes. Calibration normalises each batch by its own
statistics, and pools those; the floor uses running statistics. A third case, the floor with all batch normalisations
in train mode, shows how much of the difference is the statistics of the batches themselves, which torch computes.

RetinaNet-R18, eight images of 256x448 in batches of 2, for the largest and the smallest subnet. Each ratio is the
median over the rounds of the ratio within a round.
"""
from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import common
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmbignas.supernet import Supernet
from mmbignas.supernet.calibration import BNState, calibrate_bn

HEIGHT, WIDTH, BATCH_SIZE, BATCHES = 256, 448, 2, 4
BAR = 1.25
SECONDS_PER_SUBNET = 45.


@torch.no_grad()
def evaluate(model: nn.Module, batches: Sequence[dict]) -> None:
    """The forward pass of all batches."""
    for batch in batches:
        model(**model.data_preprocessor(batch, False), mode='tensor')


def plain_eval(model: nn.Module, batches: Sequence[dict]) -> float:
    """Seconds of the floor."""
    model.eval()
    return common.seconds(lambda: evaluate(model, batches))


def train_mode_bn(model: nn.Module, batches: Sequence[dict]) -> float:
    """Seconds of the floor with batch normalisations in train mode."""
    model.eval()
    for module in model.modules():
        if isinstance(module, _BatchNorm):
            module.training = True
    state = BNState(model)
    duration = common.seconds(lambda: evaluate(model, batches))
    state.restore()
    return duration


def calibration(model: nn.Module, batches: Sequence[dict]) -> float:
    """Seconds of BN calibration."""
    model.eval()
    state = BNState(model)
    duration = common.seconds(lambda: calibrate_bn(model, batches))
    state.restore()
    return duration


def main() -> None:
    """Measure the largest and the smallest subnet."""
    model = common.build_detector()
    supernet = Supernet(model)
    batches = [common.synthetic_batch(HEIGHT, WIDTH, BATCH_SIZE, seed) for seed in range(BATCHES)]
    calibrate_bn(model, batches)
    figures, medians = [], {}
    print(f'{"":4}  plain eval  BN in train mode  calibration  rounds')
    for name, subnet in dict(max=supernet.space.max(), min=supernet.space.min()).items():
        supernet.apply(subnet)
        cases: dict[str, Callable[[], float]] = {
            function.__name__: partial(function, model, batches)
            for function in (plain_eval, train_mode_bn, calibration)}
        rounds = round(SECONDS_PER_SUBNET / sum(case() for case in cases.values()))
        times = common.interleave(cases, rounds)
        medians[name] = {case: round(common.statistics.median(values), 4) for case, values in times.items()}
        floor = times['plain_eval']
        ratio, train_mode = (common.median_ratio(times[case], floor) for case in ('calibration', 'train_mode_bn'))
        plain, train, ours = medians[name].values()
        print(f'{name:4}  {plain:9.3f}s  {train:7.3f}s  {train_mode:6.3f}  {ours:6.3f}s {ratio:.3f}  {rounds:6}',
              flush=True)
        figures.append(common.figure(f'calibration {name}', ratio, BAR))
        medians[name]['ratio of BN in train mode'] = round(train_mode, 4)
    common.report('bn_calibration', figures, seconds=medians)


if __name__ == '__main__':
    main()
