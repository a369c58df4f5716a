"""An elastic network divided into units, whose latencies add up to its own."""
from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from torch import nn

from mmbignas.cost.settings import BlockPlace, StageValues, UnitValues
from mmbignas.elastic.elastic_layer import ElasticLayer
from mmbignas.elastic.genes import DepthGene, WidthGene
from mmbignas.elastic.parts import Parts
from mmbignas.space import Subnet

MOST_GENES = 3  # of a unit that is not a block: a table holds a unit for each combination of their choices


class ElasticUnits:
    """The units of an elastic network, and their settings, for :class:`~mmbignas.cost.CostModel`.

    Units are the blocks that can be left out, and the greatest modules beside them that depend on few genes.

    Args:
        model: the network.
        parts: its elastic parts.
        widths, depths: its genes.

    Attributes:
        paths: of the units.
        places: path of each unit -> its place in what :meth:`read` returns.
        alike: see :class:`~mmbignas.cost.settings.UnitSettings`.
    """

    def __init__(self, model: nn.Module, parts: Parts, widths: list[WidthGene], depths: list[DepthGene]) -> None:
        self._model: Any = model
        self._gene_of = {name: number for number, gene in enumerate(widths) for name in gene.groups}
        runs = parts.plan.runs
        # Path of a block that can be left out -> number of its gene, and of the block in its run.
        self._skippable = {path: (number, block) for number, gene in enumerate(depths)
                           for block, path in enumerate(runs[gene.name].blocks) if block >= min(gene.choices)}
        blocks = [path for run in runs.values() for path in run.blocks[run.least:]]
        self._genes: dict[str, list[int]] = {}
        for name, child in model.named_children():
            self._genes.update(self._walk(name, child, blocks))
        self.paths = list(self._genes)
        self.places = {path: BlockPlace(stage, 0) for stage, path in enumerate(self._genes)}
        self.alike = [True] * len(self._genes)

    def _walk(self, path: str, module: nn.Module, blocks: list[str]) -> Iterator[tuple[str, list[int]]]:
        layers = [part for part in module.modules() if isinstance(part, ElasticLayer)]
        genes = sorted({self._gene_of[atom.name] for layer in layers for atom in layer.elastic_plan.atoms
                        if atom.name in self._gene_of})
        holds_block = any(block.startswith(f'{path}.') for block in blocks)
        holds_tensors = isinstance(module, ElasticLayer) and bool(module.elastic_plan.tensors)
        has_forward = not isinstance(module, (nn.ModuleList, nn.ModuleDict))
        few = layers and len(genes) <= MOST_GENES and has_forward and not holds_block
        if path in blocks or holds_tensors or few:
            yield path, genes
            return
        for name, child in module.named_children():
            yield from self._walk(f'{path}.{name}', child, blocks)

    def read(self, subnet: Subnet) -> list[StageValues]:
        """Per unit, the values of its genes; nothing of a block that the subnet leaves out."""
        widths = subnet['elastic.width']['out_channel'] if 'elastic.width' in subnet else ()
        depths = subnet['elastic.depth']['depth'] if 'elastic.depth' in subnet else ()
        stages: list[StageValues] = []
        for path, genes in self._genes.items():
            gene, block = self._skippable.get(path, (0, -1))
            left_out = block >= 0 and block >= depths[gene]
            stages.append(() if left_out else (tuple([widths[number] for number in genes]),))
        return stages

    def apply(self, path: str, values: UnitValues) -> None:
        """Let one unit compute with these values, all others with all they have."""
        elastic = self._model.elastic
        if hasattr(elastic, 'depth'):
            elastic.depth.apply_subnet(elastic.depth.search_space.max())
        if hasattr(elastic, 'width'):
            widths = list(elastic.width.search_space.max()['out_channel'])
            for number, value in zip(self._genes[path], values, strict=True):
                widths[number] = value
            elastic.width.apply_subnet(dict(out_channel=widths))
