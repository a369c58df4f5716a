"""From the config of a trained network to all that a family of it needs: plan, search space, costs."""
from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

from mmengine.config import Config
from torch import nn

from mmbignas.cost import Cost, CostModel
from mmbignas.elastic.builder import build_stock, make_supernet
from mmbignas.elastic.genes import DIVISOR
from mmbignas.elastic.network_profile import LayerProfile, profile
from mmbignas.elastic.planning import proven
from mmbignas.errors import ConfigError
from mmbignas.space import SearchSpace
from mmbignas.supernet import Supernet, model_config, read_checkpoint
from mmbignas.supernet.build import use_scope
from mmbignas.supernet.checkpoint import check_weights
from mmbignas.utils.configs import type_name
from mmbignas.utils.rules import shown

RATIOS = (0.5, 0.75, 1.0)


class Family:
    """A stock network, made a supernet.

    Args:
        cfg: config of the network's own training.
        checkpoint: of that training; ``None`` where there is none.
        image_size: height and width in pixels, of the images that costs are counted for.
        ratios: ascending shares of the full width, up to 1.
        divisor: widths are multiples of it.
        share: ``stage`` or ``group``, see :func:`~mmbignas.elastic.Elastic`.
        with_depth: whether blocks with a shortcut can be left out.
        example: a batch to trace the network with, see :data:`~mmbignas.elastic.example.HOW`.

    Raises:
        ConfigError: for a config without a model, a checkpoint of another one, or a network from which no supernet
            follows.

    Attributes:
        of: name of the network's class.
        settings: ``width``, ``depth`` and ``share``, as in a config.
        overrides: what else has to change in the model's config, since subnets would be spoilt otherwise.
        plan: what can be dropped in the network.
        model: the supernet.
        space: its search space.
        layers: its convolutions and linear layers.
        smallest, largest: costs of these subnets; ``None`` for a network whose costs cannot be counted.
        no_costs: why they cannot.
    """

    def __init__(self, cfg: Config, checkpoint: str | None, image_size: Sequence[int],
                 ratios: Sequence[float] = RATIOS, divisor: int = DIVISOR, share: str = 'stage',
                 with_depth: bool = True, example: Any = None) -> None:
        config = model_config(cfg, cfg.filename or 'config')
        self.of = stock_name(config, cfg.get('default_scope'))
        config.pop('type')
        use_scope(cfg)
        self.overrides = remedies(build_stock(self.of, without_files(config)))
        if checkpoint is not None:  # which has all weights
            self.overrides = merged(unloaded(config), self.overrides)
        stock = build_stock(self.of, without_files(merged(config, self.overrides)))
        if checkpoint is not None:
            check_weights(stock, read_checkpoint(checkpoint), more=True)
        batch, self.plan = proven(stock, example)
        self.settings: dict[str, Any] = dict(
            width=dict(ratios=list(ratios), divisor=divisor),
            depth='residual' if with_depth and self.plan.runs else None, share=share)
        self.model: nn.Module = make_supernet(stock, self.plan, **self.settings).eval()
        self.space: SearchSpace = Supernet(self.model).space
        self.layers: list[LayerProfile] = profile(self.model, batch)
        self.smallest: Cost | None = None
        self.largest: Cost | None = None
        self.no_costs = ''
        try:
            costs = CostModel(self.model, [tuple(image_size)])
            self.smallest, self.largest = costs(costs.space.min()), costs(costs.space.max())
        except ConfigError as error:
            self.no_costs = str(error)


def stock_name(config: Mapping[str, Any], scope: str | None) -> str:
    """The name of a model's class in the registry, with its scope.

    Args:
        config: the model's config.
        scope: the ``default_scope`` of the run.

    Raises:
        ConfigError: for a model that is a supernet already.
    """
    kind = config.get('type')
    if not isinstance(kind, str):
        return f'{kind.__module__}.{kind.__qualname__}'  # type: ignore[union-attr]
    if type_name(config) in ('Elastic', 'Cut'):
        raise ConfigError(f"model.type must be a stock model, such as 'mmdet.RTMDet', got {shown(kind)}")
    return kind if '.' in kind or not scope else f'{scope}.{kind}'


def remedies(model: nn.Module) -> dict[str, Any]:
    """What has to change in a model's config for subnets to be trained and normalised by their own statistics.

    Args:
        model: the stock network.

    Returns:
        dict: a part of the config, with ``frozen_stages``, ``norm_eval`` and ``requires_grad`` of ``norm_cfg``.
    """
    found: dict[str, Any] = {}
    for path, module in model.named_modules():
        own: dict[str, Any] = {}
        if getattr(module, 'norm_eval', False) is True:
            own['norm_eval'] = False
        stages = getattr(module, 'frozen_stages', -1)
        if isinstance(stages, int) and stages >= 0:
            own['frozen_stages'] = -1
        norm = getattr(module, 'norm_cfg', None)
        if isinstance(norm, Mapping) and norm.get('requires_grad') is False and '.' not in path:
            own['norm_cfg'] = dict(requires_grad=True)
        if own and path:
            for name in reversed(path.split('.')):
                own = {name: own}
            found = merged(found, own)
    return found


def unloaded(config: Mapping[str, Any]) -> dict[str, Any]:
    """What has to change in a model's config for no part of it to load weights of its own."""
    found: dict[str, Any] = {}
    for name, value in config.items():
        if (name == 'pretrained' and value is not None) or (name == 'init_cfg' and 'Pretrained' in str(value)):
            found[name] = None
        elif isinstance(value, Mapping):
            below = unloaded(value)
            if below:
                found[name] = below
    return found


def without_files(config: Mapping[str, Any]) -> dict[str, Any]:
    """A model's config by which no part of it loads weights of its own."""
    return merged(config, unloaded(config))


def merged(config: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """A config with some of its settings changed, as MMEngine does it with ``_base_``."""
    result = copy.deepcopy(dict(config))
    for name, value in changes.items():
        own = result.get(name)
        result[name] = merged(own, value) if isinstance(own, Mapping) and isinstance(value, Mapping) else value
    return result
