"""The searchable modules of an elastic network, which hang in it as ``elastic.width`` and ``elastic.depth``."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from torch import Tensor, nn

from mmbignas.elastic.cost_formula import CostFormula
from mmbignas.elastic.cutting import cut_config, cut_state
from mmbignas.elastic.genes import DepthGene, WidthGene
from mmbignas.elastic.network_units import ElasticUnits
from mmbignas.elastic.parts import Parts
from mmbignas.elastic.plan import Plan
from mmbignas.errors import ConfigError
from mmbignas.space import ModuleSettings, ModuleSpace
from mmbignas.supernet.checkpoint import PLAN


class ElasticWidth(nn.Module):
    """The widths of a network: a stage per gene, ``out_channel`` as its value.

    Args:
        parts: the network's elastic parts.
        genes: its genes.

    Attributes:
        search_space: the space; its stages are the genes.
        genes: the genes.
    """

    def __init__(self, parts: Parts, genes: Sequence[WidthGene]) -> None:
        super().__init__()
        self.genes = list(genes)
        space: dict[str, Any] = dict(dynamic_range=[list(gene.channels) for gene in genes])
        self.search_space = ModuleSpace(dict(depth=[1] * len(genes), out_channel=dict(space=space)), len(genes),
                                        block_elements=(), key='elastic.width')
        self._parts = parts
        self._positions = [dict(zip(gene.channels, gene.positions)) for gene in genes]

    def apply_subnet(self, settings: ModuleSettings) -> None:
        """Compute with these widths from now on.

        Args:
            settings: canonical settings of :attr:`search_space`.
        """
        widths: dict[str, int] = {}
        for gene, positions, channels in zip(self.genes, self._positions, settings['out_channel']):
            widths.update(zip(gene.groups, positions[int(channels)]))
        self._parts.apply_widths(widths)


class ElasticDepth(nn.Module):
    """The depths of a network's runs of blocks: a stage per run.

    Args:
        parts: the network's elastic parts.
        genes: its genes.

    Attributes:
        search_space: the space; its stages are the runs.
        genes: the genes.
    """

    def __init__(self, parts: Parts, genes: Sequence[DepthGene]) -> None:
        super().__init__()
        self.genes = list(genes)
        space = dict(dynamic_range=[list(gene.choices) for gene in genes])
        self.search_space = ModuleSpace(dict(depth=dict(space=space)), len(genes), block_elements=(),
                                        key='elastic.depth', least_depth=0)
        self._parts = parts

    def apply_subnet(self, settings: ModuleSettings) -> None:
        """Compute with these depths from now on.

        Args:
            settings: canonical settings of :attr:`search_space`.
        """
        self._parts.apply_depths({gene.name: int(depth) for gene, depth in zip(self.genes, settings['depth'])})


class ElasticSpace(nn.Module):
    """What makes a stock network a supernet; it has no parameters and hangs in the network as ``elastic``.

    Its plan is written into every state dict, beside the weights, and a state dict with another plan is refused.

    Args:
        parts: the network's elastic parts.
        widths, depths: its genes.

    Attributes:
        plan: what can be dropped in the network.
        parts: its elastic parts.
        width: the :class:`ElasticWidth`, if there are genes of widths.
        depth: the :class:`ElasticDepth`, if there are genes of depths.
    """

    def __init__(self, parts: Parts, widths: Sequence[WidthGene], depths: Sequence[DepthGene]) -> None:
        super().__init__()
        self.plan: Plan = parts.plan
        self.parts = parts
        if widths:
            self.width = ElasticWidth(parts, widths)
        if depths:
            self.depth = ElasticDepth(parts, depths)
        self._register_state_dict_hook(_write_plan)

    def cost_formula(self, model: nn.Module, image: Tensor) -> CostFormula:
        """What any subnet costs, for :class:`~mmbignas.cost.CostModel`.

        Args:
            model: the network in full width, on the meta device.
            image: an image on the meta device.
        """
        return CostFormula(model, image, self.plan, *self._genes)

    def units(self, model: nn.Module) -> ElasticUnits:
        """What the latency of the network is the sum of, for :class:`~mmbignas.cost.CostModel`.

        Args:
            model: the network.
        """
        return ElasticUnits(model, self.parts, *self._genes)

    @property
    def _genes(self) -> tuple[list[WidthGene], list[DepthGene]]:
        return (self.width.genes if hasattr(self, 'width') else [],
                self.depth.genes if hasattr(self, 'depth') else [])

    def subnet_config(self, model: nn.Module, model_cfg: Mapping[str, Any]) -> dict[str, Any]:
        """The config of the current subnet as a network of its own, for :func:`~mmbignas.supernet.subnet_config`.

        Args:
            model: the network.
            model_cfg: the config that it was built from.
        """
        return cut_config(model, self.parts, model_cfg)

    def subnet_state(self, model: nn.Module) -> dict[str, Tensor]:
        """Its weights, for :func:`~mmbignas.supernet.subnet_state_dict`.

        Args:
            model: the network.
        """
        return cut_state(model, self.parts)

    def _load_from_state_dict(self, state_dict: Any, prefix: str, local_metadata: Any, *args: Any) -> None:
        content = (local_metadata or {}).get(PLAN)
        if content is not None:
            check_same_plan(self.plan, content, 'checkpoint')
        super()._load_from_state_dict(state_dict, prefix, local_metadata, *args)


def check_same_plan(plan: Plan, content: Any, key: str) -> None:
    """Refuse weights that were written with another plan.

    Args:
        plan: the model's.
        content: the other one, as plain data.
        key: what to call where it comes from.

    Raises:
        ConfigError: naming the first difference.
    """
    other = Plan.from_dict(content, f'{key}: the plan')
    if other.digest != plan.digest:
        raise ConfigError(f'{key} must have the plan of this model, but {plan.difference(other) or "its plan differs"}')


def _write_plan(module: ElasticSpace, state_dict: Any, prefix: str, local_metadata: dict[str, Any]) -> None:
    local_metadata[PLAN] = module.plan.to_dict()
