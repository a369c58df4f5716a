"""A subnet's settings from the point of view of a model's units."""
from __future__ import annotations

from typing import Any, NamedTuple

from mmbignas.cost.shadow import Shadow
from mmbignas.space import ModuleSettings, Subnet
from mmbignas.space.module_space import split_blocks

UnitValues = tuple
StageValues = tuple[UnitValues, ...]


class BlockPlace(NamedTuple):
    """The place of a unit's settings.

    Args:
        stage: index into what :meth:`UnitSettings.read` returns.
        block: number of the block in the stage.
    """

    stage: int
    block: int


class UnitSettings:
    """Reads the settings of a model's units out of a subnet, and applies them.

    Args:
        shadow: the model.

    Attributes:
        places: path of each unit that has settings -> their place.
        alike: per stage, whether all of its blocks have the same settings.
    """

    def __init__(self, shadow: Shadow) -> None:
        self._shadow = shadow
        self._spaces = shadow.supernet.space.modules
        self._names = {path: [name for name in space.elements if name != 'depth']
                       for path, space in self._spaces.items()}
        owners = {owner: block is not None for owner, block in shadow.settings_of.values()}
        # Owner, whether it is divided into blocks, and the elements that differ from block to block.
        self._owners = [(owner, divided, [name for name in self._names[owner]
                                          if self._spaces[owner].elements[name].per_block])
                        for owner, divided in owners.items()]
        first: dict[str, int] = {}
        self.alike: list[bool] = []
        for owner, divided, by_block in self._owners:
            first[owner] = len(self.alike)
            self.alike += [not by_block] * (self._spaces[owner].num_stages if divided else 1)
        self.places = {path: BlockPlace(first[owner] + stage, number)
                       for path, (owner, block) in shadow.settings_of.items() for stage, number in [block or (0, 0)]}

    def read(self, subnet: Subnet) -> list[StageValues]:
        """Per stage, per block that the subnet has: the values of its elements, without depth.

        A module that is not divided into blocks has one stage of one block, with the values of all elements, those of
        the searchable modules inside it included.
        """
        stages: list[StageValues] = []
        for owner, divided, by_block in self._owners:
            settings = subnet[owner]
            if not divided:
                inner = [tuple(subnet[path].values()) for path in self._shadow.nested[owner]]
                stages.append((sum(inner, tuple(settings.values())),))
                continue
            counts, names = settings['depth'], self._names[owner]
            if by_block:
                stages += _block_values(settings, names, by_block)
            else:
                stages += [(row,) * int(count)
                           for row, count in zip(zip(*[settings[name] for name in names]), counts)]
        return stages

    def apply(self, path: str, values: UnitValues) -> None:
        """Let one unit of the shadow compute with these values."""
        owner, block = self._shadow.settings_of[path]
        unit: Any = self._shadow.units[path]
        if block is not None:
            unit.is_active = True
            unit.set_active(**dict(zip(self._names[owner], values)))
            return
        rest = iter(values)
        for searchable in (owner, *self._shadow.nested[owner]):
            module: Any = self._shadow.supernet.model.get_submodule(searchable)
            module.apply_subnet({name: next(rest) for name in self._spaces[searchable].elements})


def _block_values(settings: ModuleSettings, names: list[str], by_block: list[str]) -> list[StageValues]:
    counts = settings['depth']
    columns = [split_blocks(settings[name], counts) if name in by_block else
               [(value,) * int(count) for value, count in zip(settings[name], counts)] for name in names]
    return [tuple(zip(*stage)) for stage in zip(*columns)]
