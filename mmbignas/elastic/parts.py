"""A network whose channels can be dropped and blocks left out, by a plan."""
from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from typing import Any

from torch import nn

from mmbignas.elastic.axes import Atom, Node
from mmbignas.elastic.elastic_layer import ElasticLayer, LayerPlan, Moment, make_elastic
from mmbignas.elastic.plan import Plan, node_of


class Place:
    """Where a module stands: its parent may be given another one, as converting batch normalisations does.

    Args:
        parent: the parent, or the model itself for the model.
        name: of the child; '' for the model itself.
        plan: what can be dropped in the module.
        moment: of the model.
    """

    def __init__(self, parent: nn.Module, name: str, plan: LayerPlan, moment: Moment) -> None:
        self.parent, self.name, self.plan, self._moment = parent, name, plan, moment

    @property
    def layer(self) -> ElasticLayer:
        """The module that stands there now, made elastic if it is not."""
        module: Any = self.parent._modules[self.name] if self.name else self.parent
        if not isinstance(module, ElasticLayer):
            make_elastic(module, self.plan, self._moment)
        return module


class Parts:
    """The elastic parts of a network.

    Args:
        model: the stock network, which is made elastic.
        plan: what can be dropped.

    Attributes:
        plan: the plan.
    """

    def __init__(self, model: nn.Module, plan: Plan) -> None:
        self.plan = plan
        atoms = {name: Atom(group.size, name) for name, group in plan.groups.items()}
        moment = Moment()
        modules = dict(model.named_modules())
        tensors: dict[str, dict[str, list[Node]]] = defaultdict(dict)
        for name, axes in plan.tensors.items():
            path, _, own = name.rpartition('.')
            tensors[path][own] = [node_of(axis, atoms) for axis in axes]
        blocks = [path for run in plan.runs.values() for path in run.blocks[run.least:]]
        self._places: dict[str, Place] = {}
        for path in dict.fromkeys([*tensors, *plan.attributes, *blocks]):
            attributes = {name: node_of(axis, atoms) for name, axis in plan.attributes.get(path, {}).items()}
            layer_plan = LayerPlan(modules[path], tensors.get(path, {}), attributes)
            parent, _, name = path.rpartition('.')
            self._places[path] = Place(modules[parent], name, layer_plan, moment)
        for place in self._places.values():
            assert place.layer is not None
        numbers = {atom: number for number, atom in enumerate(atoms.values())}
        self._full = [group.size for group in plan.groups.values()]
        self._numbers = {name: number for number, name in enumerate(plan.groups)}
        self._wide = [(place, [numbers[atom] for atom in place.plan.atoms])
                      for place in self._places.values() if place.plan.atoms]
        model.register_forward_pre_hook(moment.begin)
        model.register_forward_hook(moment.end, always_call=True)

    def apply_widths(self, widths: Mapping[str, int]) -> None:
        """Compute with the first positions of each group from now on.

        Args:
            widths: name of each group -> number of positions in use; all of one that is not there.
        """
        counts = self._full.copy()
        for name, count in widths.items():
            counts[self._numbers[name]] = count
        for place, numbers in self._wide:
            place.layer.apply_widths(tuple([counts[number] for number in numbers]))

    def apply_depths(self, depths: Mapping[str, int]) -> None:
        """Leave the last blocks of runs out from now on.

        Args:
            depths: name of each run -> number of blocks in use; all of one that is not there.
        """
        for name, run in self.plan.runs.items():
            count = depths.get(name, len(run.blocks))
            for number, path in enumerate(run.blocks[run.least:], run.least):
                self._places[path].layer.is_active = number < count

    def layers(self) -> dict[str, ElasticLayer]:
        """Path of each elastic module -> the module."""
        return {path: place.layer for path, place in self._places.items()}


def full_names(model: nn.Module, plan: Plan) -> dict[str, str]:
    """Every name that a tensor of the plan has in the state dict -> its name in the plan; shared ones have several."""
    own = {**dict(model.named_parameters()), **dict(model.named_buffers())}
    planned = {id(own[name]): name for name in plan.tensors}
    every: Iterable[tuple[str, Any]] = [*model.named_parameters(remove_duplicate=False),
                                        *model.named_buffers(remove_duplicate=False)]
    return {name: planned[id(tensor)] for name, tensor in every if id(tensor) in planned}
