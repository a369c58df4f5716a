"""One family of the zoo, checked in a process of its own: ``python benchmarks/zoo_check.py mmdet/retinanet``.

The last line is JSON; see :func:`check`.
"""
from __future__ import annotations

import copy
import importlib
import inspect
import json
import logging
import random
import sys
import time
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

# ruff: noqa: E402 (only now can these be found)
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.model import BaseModule
from mmengine.registry import MODELS, init_default_scope
from torch import nn
from zoo_families import FAMILIES

from mmbignas import ConfigError
from mmbignas.cost import CostModel
from mmbignas.elastic import Plan, build_cut, cut_arguments, cut_state, make_supernet
from mmbignas.elastic.builder import build_stock
from mmbignas.elastic.conditions import quiet_run, run, tensor_outputs
from mmbignas.elastic.planning import traced
from mmbignas.elastic.self_check import TOLERANCE, difference
from mmbignas.elastic.verification import verified
from mmbignas.supernet import Supernet
from mmbignas.supernet.forward_inputs import forward_inputs

SUBNETS = 3
COSTS = 2
WIDTH = dict(ratios=[0.25, 0.5, 0.75, 1.0], divisor=8)
HALF = dict(ratios=[0.5, 1.0], divisor=8)


def stock_config(family: str) -> dict[str, Any]:
    """The model of a family's config, without pretrained weights and frozen parts."""
    package, _, folder = family.partition('/')
    configs = Path(str(importlib.import_module(package).__file__)).parent / '.mim' / 'configs'
    config = Config.fromfile(configs / folder / f'{FAMILIES[family]}.py')
    init_default_scope(package)
    model = config.model
    if config.get('data_preprocessor'):
        model.setdefault('data_preprocessor', config.data_preprocessor)
    teacher = model.get('teacher_config')
    if isinstance(teacher, str):  # from the root of the package's repository
        model['teacher_config'] = str(configs.parent / teacher)
    _without_weights(model)
    return model


def _without_weights(config: Any) -> None:
    if isinstance(config, Mapping):
        for name in ('init_cfg', 'pretrained', 'teacher_ckpt'):
            if config.get(name) is not None and ('Pretrained' in str(config[name]) or name != 'init_cfg'):
                config[name] = None  # type: ignore[index]
        config.update(_whole(config))  # type: ignore[attr-defined]
    values = config.values() if isinstance(config, Mapping) else config if isinstance(config, (list, tuple)) else ()
    for value in values:
        _without_weights(value)


def _whole(config: Mapping[str, Any]) -> dict[str, Any]:
    """The options by which a module is trained as a whole, as far as its class has them."""
    with MODELS.switch_scope_and_registry(None) as registry:
        cls: Any = registry.get(config['type']) if isinstance(config.get('type'), str) else config.get('type')
        if not isinstance(cls, type):
            return {}
        defaults: dict[str, Any] = {}
        for base in cls.__mro__:
            own = inspect.signature(base.__init__).parameters  # type: ignore[misc]
            defaults = {**{name: option.default for name, option in own.items()}, **defaults}
            if all(option.kind is not option.VAR_KEYWORD for option in own.values()):
                break
        found: dict[str, Any] = {}
        if config.get('norm_eval', defaults.get('norm_eval')) is True:
            found['norm_eval'] = False
        stages = config.get('frozen_stages', defaults.get('frozen_stages', -1))
        if isinstance(stages, int) and stages >= 0:
            try:  # some classes have no way to freeze nothing but 0
                registry.build(dict(config, frozen_stages=-1))
                found['frozen_stages'] = -1
            except (ValueError, AssertionError):
                found['frozen_stages'] = 0
        return found


class Macs:
    """Multiply-adds of a model's convolutions and linear layers in a forward pass, by path."""

    def __init__(self, model: nn.Module) -> None:
        self.by_path: dict[str, int] = {}
        self._handles = [module.register_forward_hook(self._hook(path)) for path, module in model.named_modules()
                         if isinstance(getattr(module, 'weight', None), torch.Tensor) and module.weight.dim() > 1]

    def _hook(self, path: str) -> Any:
        def hook(module: Any, inputs: Any, output: Any) -> None:
            weight = module.weight
            if isinstance(module, nn.Linear):
                amount = output.numel() * weight.shape[-1]
            elif isinstance(output, torch.Tensor) and weight.dim() > 2 and hasattr(module, 'groups'):
                pixels = inputs[0] if getattr(module, 'transposed', False) else output
                amount = pixels.shape[0] * pixels[0, 0].numel() * weight.numel()
            else:
                return
            self.by_path[path] = self.by_path.get(path, 0) + amount
        return hook

    def remove(self) -> int:
        """Stop counting; the sum."""
        for handle in self._handles:
            handle.remove()
        return sum(self.by_path.values())


def macs_of(model: nn.Module, batch: Any) -> dict[str, int]:
    """Multiply-adds of each layer in mode ``tensor``."""
    counter = Macs(model)
    with quiet_run(model):
        run(model, batch, 'tensor')
    counter.remove()
    return counter.by_path


def same(one: nn.Module, other: nn.Module, batch: Any) -> bool:
    """Whether two networks return the same, bit for bit."""
    outputs = []
    for model in (one, other):
        with quiet_run(model):
            outputs.append(tensor_outputs(model, batch))
    return len(outputs[0]) == len(outputs[1]) and all(
        first.shape == second.shape and torch.equal(first.nan_to_num(), second.nan_to_num())
        for first, second in zip(*outputs))


def trains(model: nn.Module, batch: Any) -> bool:
    """Whether a network's losses have a gradient that is finite."""
    model.zero_grad()
    with quiet_run(model, training=True), torch.enable_grad():
        losses = run(model, batch, 'loss')
        flat = [value for loss in losses.values() for value in (loss if isinstance(loss, (list, tuple)) else [loss])]
        total = sum(value.mean() for value in flat if isinstance(value, torch.Tensor) and value.requires_grad)
        total.backward()  # type: ignore[union-attr]
    gradients = [parameter.grad for parameter in model.parameters() if parameter.grad is not None]
    fits = all(parameter.grad.shape == parameter.shape for parameter in model.parameters()
               if parameter.grad is not None)
    return bool(gradients) and fits and all(bool(torch.isfinite(gradient).all()) for gradient in gradients)


class Analysed(nn.Module):
    """A network with all that its ``forward`` takes beside an image, so that MMEngine can analyse it."""

    def __init__(self, model: nn.Module, inputs: Mapping[str, Any]) -> None:
        super().__init__()
        self.model, self.inputs = model, inputs

    def forward(self, image: Any) -> Any:
        return self.model(image, **self.inputs)


def analysis(network: nn.Module, image: torch.Tensor) -> tuple[int, int, int]:
    """MACs, operations and parameters of a network by MMEngine."""
    network.eval()
    with forward_inputs(network, image) as inputs:
        analyzer = FlopAnalyzer(Analysed(network, inputs), image)
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        by_operator = analyzer.by_operator()
        return int(by_operator['conv'] + by_operator['linear']), int(analyzer.total()), size_of(network)


def same_cost(model: nn.Module, of: Any, config: dict[str, Any], image: torch.Tensor) -> bool | str:
    """Whether ``CostModel`` says what MMEngine's analysis says of the cut network; else what it says."""
    with warnings.catch_warnings():
        warnings.simplefilter('error', UserWarning)  # that the formula does not hold
        try:
            cost = CostModel(model, [tuple(image.shape[2:])])
        except (ConfigError, UserWarning) as error:
            return str(error)
    supernet, rng = Supernet(model), random.Random(1)
    for _ in range(COSTS):
        subnet = supernet.apply(cost.space.sample(rng))
        found = analysis(cut_network_of(model, of, config), image)
        own = cost(subnet)
        if (own.macs, own.ops, own.params) != found:
            return f'{own[:3]} instead of {found}'
    return True


def size_of(model: nn.Module) -> int:
    """Number of parameters."""
    return sum(parameter.numel() for parameter in model.parameters())


def check(family: str) -> dict[str, Any]:
    """Take a family from its config to exported subnets.

    Args:
        family: package and folder.

    Returns:
        dict: ``groups``, ``found`` (before verification), ``runs``, ``share`` of MACs in layers that can get narrower,
        ``half`` (MACs with all at half width, of the full), ``narrow`` (parameters likewise), ``smallest`` (parameters
        with all at half width and least depth), ``self_check``, ``largest``, ``cuts``, ``trains``, ``cost``,
        ``seconds``, ``frozen``; and
        ``failed``, what went wrong, if anything did.
    """
    start = time.perf_counter()
    result: dict[str, Any] = dict(family=family, config=FAMILIES[family])
    torch.manual_seed(0)
    config = stock_config(family)
    of = config.pop('type')
    stock = build_stock(of, config)
    batch, found = traced(stock)
    result.update(found=len(found.groups), traced=True)
    plan = verified(stock, found, batch)
    result.update(groups=len(plan.groups), runs=len(plan.runs), frozen=frozen_reasons(plan))
    if not plan.groups:
        return dict(result, failed=f'no channels can be dropped: {", ".join(list(result["frozen"])[:2])}')
    result['self_check'] = difference(stock, plan, batch)
    model = make_supernet(copy.deepcopy(stock), plan, WIDTH, 'residual' if plan.runs else None, 'group')
    result['largest'] = list(model.state_dict()) == list(stock.state_dict()) and same(model, stock, batch)
    full = macs_of(model, batch)
    elastic = {name.rpartition('.')[0] for name in plan.tensors}
    result['share'] = sum(own for path, own in full.items() if path in elastic) / sum(full.values())
    supernet, rng = Supernet(model), random.Random(0)
    result['cuts'] = 0
    for number in range(SUBNETS):
        supernet.apply(supernet.space.min() if number == 0 else supernet.space.sample(rng))
        cut = cut_network_of(model, of, config)
        result['cuts'] += same(model, cut, batch)
    result['trains'] = trains(model, batch)
    result['cost'] = same_cost(model, of, config, batch['inputs'][:1])
    half = make_supernet(copy.deepcopy(stock), plan, HALF, 'residual' if plan.runs else None, 'group')
    space = Supernet(half).space
    Supernet(half).apply({path: space.min()[path] if path == 'elastic.width' else space.max()[path]
                          for path in space.modules})
    result['half'] = sum(macs_of(half, batch).values()) / sum(full.values())
    result['narrow'] = size_of(cut_network_of(half, of, config)) / size_of(stock)
    Supernet(half).apply(space.min())
    result['smallest'] = size_of(cut_network_of(half, of, config)) / size_of(stock)
    result['seconds'] = round(time.perf_counter() - start, 1)
    return result


def cut_network_of(model: nn.Module, of: Any, config: dict[str, Any]) -> nn.Module:
    """The current subnet as a network of its own."""
    parts: Any = model.elastic.parts  # type: ignore[union-attr]
    cut = build_cut(of, **cut_arguments(model, parts), **config)
    missing, unexpected = cut.load_state_dict(cut_state(model, parts), strict=False)
    # Some modules refuse to load buffers that they compute themselves.
    if unexpected or {*missing} - {name for name, _ in cut.named_buffers()}:
        raise RuntimeError(f'the cut network has other keys: {missing}, {unexpected}')
    return cut


def frozen_reasons(plan: Plan) -> dict[str, int]:
    """Reason -> number of axes, without those that are a matter of course."""
    return {reason: len(names) for reason, names in plan.frozen.items()
            if reason not in ('an input of the network', 'an output of the network',
                              'of a grouped convolution whole groups are dropped')}


def failures(result: Mapping[str, Any]) -> list[str]:
    """What a family does not pass."""
    if result.get('failed'):
        return [str(result['failed'])]
    failed = []
    if not result['largest']:
        failed.append('the largest subnet differs from the stock network')
    if result['cuts'] != SUBNETS:
        failed.append(f'{SUBNETS - result["cuts"]} of {SUBNETS} subnets differ from the cut network')
    if not result['self_check'] <= TOLERANCE:
        failed.append(f'self-check: {result["self_check"]:.1e}')
    if result['cost'] is not True:
        failed.append(f'costs: {result["cost"]}')
    if not result['trains']:
        failed.append('no finite gradient')
    return failed


def quiet() -> None:
    """One thread and no messages."""
    warnings.simplefilter('ignore')
    logging.disable(logging.WARNING)
    torch.set_num_threads(1)
    BaseModule._dump_init_info = lambda *args, **kwargs: None  # type: ignore[method-assign]


def checked(family: str) -> dict[str, Any]:
    """What :func:`check` finds, or what it raised."""
    try:
        return check(family)
    except Exception as error:  # whatever a network may raise
        return dict(family=family, config=FAMILIES[family],
                    failed=f'{type(error).__name__}: {" ".join(str(error).split())[:400]}')


def main() -> None:
    """Check the family that the command line names."""
    quiet()
    print(json.dumps((check if '--debug' in sys.argv else checked)(sys.argv[1])))


if __name__ == '__main__':
    main()
