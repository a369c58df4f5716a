"""Two other packages on families of the zoo, beside ``mmbignas.Elastic``: how small a network they can make.

ModelOpt (``nvidia-modelopt``) converts a network into a search space, whose smallest subnet counts; Torch-Pruning
drops half of every group that it finds. All choose between full and half widths in steps of eight channels. What they
make has to compute the batch that ``mmbignas`` traces with.
"""
from __future__ import annotations

import contextlib
import copy
import io
import json
import signal
import sys
import time
from collections.abc import Iterator, Mapping
from importlib.metadata import PackageNotFoundError, version
from typing import Any

import torch
from mmengine.registry import init_default_scope
from torch import nn
from zoo_check import HALF, cut_network_of, run, size_of, stock_config

from mmbignas.elastic import make_supernet
from mmbignas.elastic.builder import build_stock
from mmbignas.elastic.conditions import quiet_run
from mmbignas.elastic.plan import Plan
from mmbignas.elastic.planning import traced
from mmbignas.elastic.self_check import check
from mmbignas.elastic.tracing import OUTPUT
from mmbignas.elastic.verification import verified
from mmbignas.supernet import Supernet

# Checked if no others are named: those that are told apart by them.
PEER_FAMILIES = (
    'mmpretrain/mobilenet_v2', 'mmpretrain/efficientnet', 'mmpretrain/convnext', 'mmpretrain/resnet',
    'mmpretrain/densenet', 'mmpretrain/vgg', 'mmpretrain/shufflenet_v2', 'mmdet/faster_rcnn', 'mmdet/libra_rcnn',
    'mmdet/pafpn', 'mmdet/gn+ws', 'mmdet/dcn', 'mmdet/dyhead', 'mmdet/detr', 'mmdet/yolo', 'mmdet/fcos', 'mmdet/atss',
    'mmdet/retinanet', 'mmdet/rtmdet', 'mmdet/yolox', 'mmdet/ssd', 'mmdet/centernet', 'mmdet/regnet', 'mmdet/vfnet',
    'mmdet/reppoints', 'mmdet/cascade_rcnn')
RATIO, DIVISOR = 0.5, 8
LIMIT = 300  # seconds for each of the other packages


def shares(family: str) -> dict[str, Any]:
    """Parameters of the smallest network that each package makes, of the full network's.

    Args:
        family: package and folder.

    Returns:
        dict: per package ``narrow`` (widths alone) and ``smallest`` (and depth), ``seconds``, or ``failed``.
    """
    torch.manual_seed(0)
    config = stock_config(family)
    of = config.pop('type')
    stock = build_stock(of, copy.deepcopy(config))
    result: dict[str, Any] = dict(family=family)
    start = time.perf_counter()
    batch, plan = traced(stock)
    plan = verified(stock, plan, batch)
    check(stock, plan, batch)
    depths = {name: list(range(run.least, len(run.blocks) + 1)) for name, run in plan.runs.items()}
    model = make_supernet(copy.deepcopy(stock), plan, HALF, depths or None, 'group')
    space = Supernet(model).space
    narrow = {path: (space.max if path == 'elastic.depth' else space.min)()[path] for path in space.modules}
    Supernet(model).apply(narrow)
    own = dict(narrow=size_of(cut_network_of(model, of, config)) / size_of(stock))
    Supernet(model).apply(space.min())
    own['smallest'] = size_of(cut_network_of(model, of, config)) / size_of(stock)
    result['mmbignas'] = dict(own, seconds=time.perf_counter() - start)
    for name, measure in (('modelopt', modelopt_share), ('torch_pruning', pruning_share)):
        start = time.perf_counter()
        try:
            with contextlib.redirect_stdout(io.StringIO()), time_limit(LIMIT):
                found = measure(stock, batch, plan)
            result[name] = dict(found, seconds=time.perf_counter() - start)
        except Exception as error:  # whatever a package may raise
            result[name] = dict(failed=f'{type(error).__name__}: {" ".join(str(error).split())[:200]}')
    return result


@contextlib.contextmanager
def time_limit(seconds: int) -> Iterator[None]:
    """Raise TimeoutError in what takes longer; for the main thread."""

    def end(*_: Any) -> None:
        raise TimeoutError(f'not finished within {seconds} s')

    before = signal.signal(signal.SIGALRM, end)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def computes(model: nn.Module, batch: Mapping[str, Any]) -> None:
    """Let a network compute a batch."""
    init_default_scope(type(model).__module__.split('.')[0])
    with quiet_run(model):
        run(model, batch, 'tensor')


def modelopt_share(stock: nn.Module, batch: Mapping[str, Any], plan: Plan) -> dict[str, float]:
    """ModelOpt: the smallest subnet by widths alone, and with the depths that it finds."""
    import modelopt.torch.nas as mtn
    from modelopt.torch.nas.autonas import AutoNASConfig

    found = {}
    for name in ('narrow', 'smallest'):
        rules = copy.deepcopy(AutoNASConfig().model_dump())
        if name == 'narrow':
            del rules['nn.Sequential']
        for rule in rules.values():
            for options in rule.values():
                for option in options:
                    if option.endswith('_ratio'):
                        options[option] = (RATIO, 1.0)
                    elif option.endswith('_divisor'):
                        options[option] = DIVISOR
        model = mtn.convert(copy.deepcopy(stock), mode=[('autonas', rules)])
        mtn.sample(model, sample_func=min)
        model = mtn.export(model)
        computes(model, batch)
        found[name] = size_of(model) / size_of(stock)
    return found


def pruning_share(stock: nn.Module, batch: Mapping[str, Any], plan: Plan) -> dict[str, float]:
    """Torch-Pruning: half of every group, but for the outputs of the network, which it is told."""
    import torch_pruning

    model = copy.deepcopy(stock)
    outputs = {name.rpartition('.')[0] for name in plan.frozen.get(OUTPUT, ())}

    def forward(module: nn.Module, inputs: Any) -> Any:
        return run(module, inputs, 'tensor')

    with quiet_run(model), torch.enable_grad():
        pruner = torch_pruning.pruner.MagnitudePruner(
            model, batch, importance=torch_pruning.importance.MagnitudeImportance(p=1), pruning_ratio=RATIO,
            round_to=DIVISOR, forward_fn=forward,
            ignored_layers=[module for path, module in model.named_modules() if path in outputs])
        pruner.step()
    computes(model, batch)
    return dict(narrow=size_of(model) / size_of(stock))


def page(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The part of the documentation about other packages."""

    def cell(own: Mapping[str, Any], name: str) -> str:
        return 'fails' if own.get('failed') else f'{own[name]:.2f}' if name in own else ''

    rows = []
    for family, result in results.items():
        if result.get('failed'):
            continue
        own, modelopt, pruning = (result[name] for name in ('mmbignas', 'modelopt', 'torch_pruning'))
        seconds = ' / '.join(f'{each["seconds"]:.0f}' if 'seconds' in each else '-'
                             for each in (own, modelopt, pruning))
        rows.append(f'| {family} | {cell(own, "narrow")} | {cell(own, "smallest")} | {cell(modelopt, "narrow")} | '
                    f'{cell(modelopt, "smallest")} | {cell(pruning, "narrow")} | {seconds} |')
    return f"""
## Beside two other packages

Parameters of the smallest network, of the full network's, by `benchmarks/zoo.py --peers`: half of every width, in steps
of {DIVISOR} channels, by ModelOpt {_version('nvidia-modelopt')} (`autonas`) and Torch-Pruning
{_version('torch-pruning')} (half of every group, rounded down; depth is not its topic). ModelOpt also leaves blocks
out where only widths were asked for, so its two columns are the same. What each makes has to compute the batch.
Seconds are for all that a package does, the proof of the plan included here.

| family | mmbignas, widths | and depths | ModelOpt, widths | and depths | Torch-Pruning, widths | s |
|---|---|---|---|---|---|---|
{chr(10).join(rows)}
"""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ''


if __name__ == '__main__':
    print(json.dumps(shares(sys.argv[1])))
