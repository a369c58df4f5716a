"""``model = dict(type='mmbignas.Elastic', of='mmdet.RTMDet', ...)``: a stock network as a supernet."""
from __future__ import annotations

import copy
import difflib
from collections.abc import Iterator, Mapping
from typing import Any

from mmengine.config import ConfigDict
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.registry import MODELS as MMENGINE_MODELS
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmbignas.elastic.cut import build_cut
from mmbignas.elastic.elastic_space import ElasticSpace
from mmbignas.elastic.genes import depth_genes, width_genes
from mmbignas.elastic.parts import Parts
from mmbignas.elastic.plan import Plan
from mmbignas.elastic.planning import make_plan
from mmbignas.errors import ConfigError
from mmbignas.registry import MODELS
from mmbignas.utils.rules import shown

PROBLEMS = 3  # in a message


@MODELS.register_module(name='Elastic')
def Elastic(of: Any, width: Any = None, depth: Any = None, share: str = 'stage', example: Any = None,
            plan: str | None = None, **config: Any) -> nn.Module:
    """Build a stock network and make it a supernet.

    The network is of the class ``of``, with that class's state-dict keys, shapes and init_cfg. As a searchable part it
    has ``elastic.width`` and ``elastic.depth``, without parameters. Its largest subnet is the stock network.

    Args:
        of: class of the stock network, or its name in the registry, e.g. ``mmdet.RTMDet``.
        width: which widths there are, ``dict(ratios=[0.5, 0.75, 1.0], divisor=8)``, or a list of such dicts with
            ``match``, a pattern of module paths, see :func:`~mmbignas.elastic.genes.width_genes`.
        depth: ``'residual'`` for all runs of blocks with a shortcut, or a dict from runs to their choices.
        share: ``stage`` for one gene for the inner widths of a stage, ``group`` for a gene per group of channels.
        example: a batch to trace the network with, where none can be made: see
            :data:`~mmbignas.elastic.example.HOW`.
        plan: a plan file; without one the network is traced, by the first process of a distributed run.
        **config: of the stock network, as in its config.

    Raises:
        ConfigError: for settings from which no supernet follows, a plan of another model, or a network that would
            spoil its subnets.
    """
    model = build_stock(of, config)
    if plan is not None:
        found = Plan.load(plan)
        found.check_model(model, f'plan {plan!r}')
    else:
        found = _shared_plan(model, example)
    return make_supernet(model, found, width, depth, share)


def make_supernet(model: nn.Module, plan: Plan, width: Any = None, depth: Any = None,
                  share: str = 'stage') -> nn.Module:
    """Make a stock network a supernet, in place.

    Args:
        model: the network.
        plan: what can be dropped in it.
        width: see :func:`Elastic`.
        depth: likewise.
        share: likewise.

    Returns:
        nn.Module: the network.

    Raises:
        ConfigError: see :func:`Elastic`.
    """
    widths, depths = width_genes(model, plan, width, share), depth_genes(plan, depth)
    if not widths and not depths:
        raise ConfigError(f'width and depth must leave something to choose, got width={shown(width)}, '
                          f'depth={shown(depth)}; the '
                          f'model has {len(plan.groups)} groups of channels and {len(plan.runs)} runs of blocks')
    searched = [path for gene in widths for name in gene.groups for path in plan.groups[name].users]
    searched += [path for gene in depths for path in plan.runs[gene.name].blocks]
    problems = list(dict.fromkeys(_spoiling(model, searched)))
    if problems:
        raise ConfigError('model must train all of what its subnets use, and normalise by their own statistics, but '
                          f'{"; ".join(problems[:PROBLEMS])}')
    model.elastic = ElasticSpace(Parts(model, plan), widths, depths)
    return model


def _spoiling(model: nn.Module, searched: list[str]) -> Iterator[str]:
    """Settings by which subnets would be normalised by the full network's statistics, or not be trained."""
    flags = {module: module.training for module in model.modules()}
    modules = dict(model.named_modules())
    try:
        model.train()
        for path in searched:
            for name, module in modules[path].named_modules(prefix=path):
                still = isinstance(module, _BatchNorm) and not module.training
                frozen = any(parameter.dim() > 1 and not parameter.requires_grad
                             for parameter in module.parameters(recurse=False))
                if still or frozen:
                    yield _remedy(modules, name, 'has its statistics fixed' if still else 'is not trained')
    finally:
        for module, flag in flags.items():
            module.training = flag


def _remedy(modules: Mapping[str, nn.Module], path: str, what: str) -> str:
    """The line of a config by which a module is trained as a whole."""
    names = path.split('.')
    for owner in ('.'.join(names[:count]) for count in range(len(names), 0, -1)):
        wrong: dict[str, tuple[Any, Any]] = {}
        if getattr(modules[owner], 'norm_eval', False) is True:
            wrong['norm_eval'] = (True, False)
        stages = getattr(modules[owner], 'frozen_stages', -1)
        if isinstance(stages, int) and stages >= 0:
            wrong['frozen_stages'] = (stages, -1)
        if wrong:
            has = ' and '.join(f'{name}={value}' for name, (value, _) in wrong.items())
            line = f'dict({", ".join(f"{name}={right}" for name, (_, right) in wrong.items())})'
            for name in reversed(owner.split('.')[1:]):
                line = f'dict({name}={line})'
            return f'{owner} has {has}; add {owner.split(".")[0]}={line} to the model'
    return f'{path} {what}'


def build_stock(of: Any, config: dict[str, Any]) -> nn.Module:
    """Build a stock network.

    Args:
        of: its class, or the class's name in the registry.
        config: its other arguments.

    Raises:
        ConfigError: for a name that is not registered.
    """
    if isinstance(of, str):
        with MMENGINE_MODELS.switch_scope_and_registry(None) as registry:
            try:
                known = registry.get(of)
            except (KeyError, ImportError, AssertionError):
                known = None
            if known is None:
                names = {name for own in (registry, *registry.children.values(), *_scopes()) for name in
                         own.module_dict}
                near = difflib.get_close_matches(of.rpartition('.')[2], sorted(names), 4)
                raise ConfigError(f"of must be the name of a registered model, such as 'mmdet.RTMDet', got {shown(of)}"
                                  + (f'; near it are {", ".join(near)}' if near else ''))
    elif not callable(of):
        raise ConfigError(f"of must be a model's class or its name, such as 'mmdet.RTMDet', got {shown(of)}")
    return MMENGINE_MODELS.build(ConfigDict(copy.deepcopy(config), type=of))


def _scopes() -> Iterator[Any]:
    yield from MMENGINE_MODELS.children.values()


def _shared_plan(model: nn.Module, example: Any) -> Plan:
    """The plan of a model, traced once: the other processes of a distributed run are sent it."""
    shared: list[Any] = [None, None]
    if is_main_process():
        try:
            shared[0] = make_plan(model, example).to_dict()
        except ConfigError as error:
            shared[1] = str(error)
    broadcast_object_list(shared)
    if shared[1] is not None:
        raise ConfigError(shared[1])
    return Plan.from_dict(shared[0])


MODELS.register_module(name='Cut', module=build_cut)
