"""Searchable modules that are made of blocks."""
from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator

from torch import nn

from mmbignas.space import ModuleSettings, ModuleSpace


class SearchableBlocks(nn.Module):
    """A searchable module in which each block depends only on its own settings and its input tensors.

    It says where its blocks are. Applying a subnet follows from that, and so does the cost of any subnet in
    microseconds: :class:`~mmbignas.cost.CostModel` needs to see each block only once for each of its own settings and
    input shapes. A block is any module with ``set_active(**values)``, with one keyword per element (without ``depth``).
    Blocks beyond the depth get ``is_active = False``. ``forward`` must skip them, so that the next module takes the
    input that they would have taken. Nothing outside the blocks may depend on the settings.

    Attributes:
        search_space: the module's :class:`~mmbignas.space.ModuleSpace`.
    """

    search_space: ModuleSpace

    @abstractmethod
    def searchable_blocks(self) -> Iterator[tuple[nn.Module, int, int]]:
        """Each block of the largest subnet, with its stage and its number in the stage."""

    def apply_subnet(self, settings: ModuleSettings) -> None:
        """Compute as this subnet from now on; ``settings`` are canonical."""
        stages = self.search_space.blocks(settings)
        for block, stage, index in self.searchable_blocks():
            block.is_active = index < len(stages[stage])  # type: ignore[assignment]
            if block.is_active:
                block.set_active(**stages[stage][index])  # type: ignore[operator]
