"""The forward pass of every subnet: steps, whose costs are looked up in tables."""
from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from mmengine.utils import apply_to
from torch import Tensor, nn

from mmbignas.cost.settings import BlockPlace, StageValues, UnitSettings, UnitValues
from mmbignas.cost.shadow import Shadow
from mmbignas.cost.steps import Bound, Entry, Recorder, Shape, Step
from mmbignas.space import Subnet


@dataclass(frozen=True)
class Call:
    """Something that a subnet computes: a unit of the model, or a torch function between units.

    Args:
        path: of the unit; for a function, the module that calls it and the function's name.
        values: settings of the unit.
        inputs: shapes of its input tensors.
    """

    path: str
    values: UnitValues
    inputs: tuple[Shape, ...]
    _step: Step = field(repr=False, compare=False)
    _shadow: Shadow = field(repr=False, compare=False)

    def bind(self, network: nn.Module) -> nn.Module:
        """The computation as a module that takes tensors of the shapes :attr:`inputs`.

        Args:
            network: the subnet as a plain network, or the supernet with the subnet applied.
        """
        model, bound = self._shadow.supernet.model, self._step.bound
        names = {id(tensor): name for name, tensor in (*model.named_parameters(), *model.named_buffers())}
        state = {**dict(network.named_parameters()), **dict(network.named_buffers())}

        def found(tensor: Tensor) -> Tensor:
            """The network's own for a parameter or buffer of the model; zeros for any other tensor."""
            name = names.get(id(tensor))
            return torch.zeros(tensor.shape, dtype=tensor.dtype) if name is None else state[name].detach()

        arguments = apply_to(bound.arguments, lambda item: isinstance(item, Tensor), found)
        return Bound(network.get_submodule(self.path) if self._step.unit is not None else bound.function, arguments)


class Taken(NamedTuple):
    """A step that a subnet takes: its settings, the numbers of its inputs' shapes, and its cost."""

    step: Step
    values: UnitValues
    shapes: tuple[int, ...]
    entry: Entry


class Segment:
    """Consecutive steps that depend on the settings of one stage or, where a stage's blocks differ, of one block.

    Args:
        place: the stage and the block; ``None`` for steps without settings.
        whole: whether it is the whole stage.
    """

    def __init__(self, place: BlockPlace | None, whole: bool) -> None:
        self.place = place
        # What the costs depend on besides the inputs: which stage, and which of its blocks, `None` for all.
        self.stage = -1 if place is None else place.stage
        self.blocks = None if place is None or whole else slice(place.block, place.block + 1)
        self.steps: list[tuple[Step, BlockPlace | None, dict]] = []
        self.inputs: tuple[int, ...] = ()
        self.outputs: tuple[int, ...] = ()
        # Settings and numbers of the inputs' shapes -> amounts per child of the model, numbers of the outputs' shapes.
        self.table: dict[tuple, tuple[list[tuple[str, int, int, int]], list[int]]] = {}


class Program:
    """The forward pass of every subnet on images of one size.

    It is recorded once, for the largest subnet. Any other subnet takes the same steps, except for blocks beyond its
    depth, which pass their input on. A step's cost follows from its settings and the shapes of its inputs; it
    is measured when it is met for the first time and looked up from then on, as is the sum over a segment.

    Args:
        shadow: the model.
        settings: its units' settings.
        size: height and width of the image in pixels.

    Raises:
        ConfigError: when the model cannot be run on shapes alone.

    Attributes:
        shapes: all shapes of tensors that were met; a shape's number is its index.
    """

    def __init__(self, shadow: Shadow, settings: UnitSettings, size: tuple[int, int]) -> None:
        self._shadow, self._settings = shadow, settings
        image = shadow.image(size)
        with Recorder(shadow, image) as recorder:
            shadow.run(shadow.supernet.space.max(), image)
        self.shapes: list[Shape] = []
        self._numbers: dict[Shape, int] = {}
        self._slots = [self._number(tuple(image.shape))] * recorder.slots
        self._segments = self._divide(recorder.steps)
        # Reading attributes takes as long as all the rest of a look-up.
        self._plan = [(segment, segment.stage, segment.blocks, segment.inputs, segment.outputs, segment.table)
                      for segment in self._segments]
        model = shadow.supernet.model
        called: set[Any] = {part for step in recorder.steps if step.unit is not None for part in step.unit.modules()}
        constant = {name: shadow.parameters(child, called) for name, child in model.named_children()}
        constant[''] = shadow.parameters(model, called)
        costly = {step.group for step in recorder.steps}
        self._constant = {name: params for name, params in constant.items() if params or name in costly}

    def _divide(self, steps: Iterable[Step]) -> list[Segment]:
        segments: list[Segment] = []
        for step in steps:
            place = self._settings.places.get(step.path) if step.unit is not None else None
            whole = place is not None and self._settings.alike[place.stage]
            last = segments[-1] if segments else None
            goes_on = last is not None and (place is None or last.place is not None and (
                place == last.place or whole and place.stage == last.place.stage))
            if last is None or not goes_on:
                last = Segment(place, whole)
                segments.append(last)
            last.steps.append((step, place, {}))
        made = [{slot for step, _, _ in segment.steps for slot in step.outputs} for segment in segments]
        used = [dict.fromkeys(slot for step, _, _ in segment.steps for slot in step.inputs) for segment in segments]
        for index, segment in enumerate(segments):
            segment.inputs = tuple(slot for slot in used[index] if slot not in made[index])
            later = {slot for slots in used[index + 1:] for slot in slots}
            segment.outputs = tuple(sorted(made[index] & later))
        return segments

    def calls(self, subnet: Subnet) -> list[Call]:
        """What a subnet computes, in order."""
        stages, slots = self._settings.read(subnet), self._slots.copy()
        return [Call(taken.step.path, taken.values, tuple(self.shapes[number] for number in taken.shapes), taken.step,
                     self._shadow) for segment in self._segments for taken in self._take(segment, stages, slots)]

    def cost(self, subnet: Subnet) -> dict[str, list[int]]:
        """MACs, operations and parameters of a subnet for each child of the model.

        Raises:
            ConfigError: for a subnet of another space.
        """
        stages, slots = self._settings.read(subnet), self._slots.copy()
        stages.append(())  # of segments without settings
        groups = {name: [0, 0, params] for name, params in self._constant.items()}
        for segment, stage, blocks, inputs, outputs, table in self._plan:
            values = stages[stage] if blocks is None else stages[stage][blocks]
            key = (values, slots[inputs[0]]) if len(inputs) == 1 else (values, *[slots[slot] for slot in inputs])
            found = table.get(key)
            if found is None:
                self._shadow.supernet.space.canonical({path: subnet[path] for path in subnet})  # refuses other subnets
                sums: dict[str, tuple[int, int, int]] = {}
                for step, _, _, entry in self._take(segment, stages, slots):
                    macs, ops, params = sums.get(step.group, (0, 0, 0))
                    sums[step.group] = macs + entry.macs, ops + entry.ops, params + entry.params
                found = table[key] = ([(name, *amounts) for name, amounts in sums.items()],
                                      [slots[slot] for slot in outputs])
            for name, macs, ops, params in found[0]:
                amounts = groups[name]
                amounts[0] += macs
                amounts[1] += ops
                amounts[2] += params
            for slot, number in zip(outputs, found[1]):
                slots[slot] = number
        return {name: amounts for name, amounts in groups.items() if any(amounts)}

    def _take(self, segment: Segment, stages: list[StageValues], slots: list[int]) -> Iterator[Taken]:
        """The steps of a segment that a subnet takes; fills in the shapes of their outputs."""
        for step, place, table in segment.steps:
            shapes = made = tuple([slots[slot] for slot in step.inputs])
            if place is None or place.block < len(stages[place.stage]):
                values = () if place is None else stages[place.stage][place.block]
                entry = table.get((values, shapes))
                if entry is None:
                    entry = table[values, shapes] = self._measure(step, values, shapes)
                made = entry.outputs
                yield Taken(step, values, shapes, entry)
            for slot, number in zip(step.outputs, made, strict=True):
                slots[slot] = number

    def _measure(self, step: Step, values: UnitValues, shapes: tuple[int, ...]) -> Entry:
        if step.path in self._settings.places:
            self._settings.apply(step.path, values)
        macs, ops, params, outputs = step.measure(self._shadow, [self.shapes[number] for number in shapes])
        return Entry(macs, ops, params, tuple(self._number(shape) for shape in outputs))

    def _number(self, shape: Shape) -> int:
        if shape not in self._numbers:
            self._numbers[shape] = len(self.shapes)
            self.shapes.append(shape)
        return self._numbers[shape]
