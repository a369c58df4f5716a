"""What can be dropped in a network: the result of a trace, as plain data."""
from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from torch import nn

from mmbignas.elastic.axes import Atom, Fix, Node, Prod, Sum, normal
from mmbignas.errors import ConfigError
from mmbignas.utils.files import replacing
from mmbignas.utils.plain_data import read_data
from mmbignas.utils.rules import in_one_line, shown

VERSION = 1

Axis = int | str | dict[str, list[Any]]


@dataclass
class Group:
    """Channels that are dropped together, all over the network.

    Args:
        size: number of positions.
        unit: channels per position: more than 1 where whole groups of a normalisation or convolution are dropped.
        producers: paths of the layers whose output channels they are.
        users: paths of all modules that have parameters of them.
    """

    size: int
    unit: int
    producers: list[str]
    users: list[str]


@dataclass
class Run:
    """Blocks that are called one after the other.

    Args:
        blocks: their paths.
        least: how many of the first have to stay.
    """

    blocks: list[str]
    least: int


@dataclass
class Plan:
    """The elastic parts of a network.

    Args:
        model: name of the network's class.
        groups: name -> group.
        tensors: name of each parameter or buffer with channels that can be dropped -> its axes: a number (that many
            positions stay), the name of a group, ``{'sum': [...]}`` for a concatenation or ``{'prod': [...]}`` for
            outer x inner.
        attributes: path of a module -> attributes that follow an axis.
        runs: name -> run.
        frozen: reason -> axes of parameters that stay as they are for that reason.
        shapes: name of each parameter -> shape in full width.
    """

    model: str
    groups: dict[str, Group]
    tensors: dict[str, list[Axis]]
    attributes: dict[str, dict[str, Axis]] = field(default_factory=dict)
    runs: dict[str, Run] = field(default_factory=dict)
    frozen: dict[str, list[str]] = field(default_factory=dict)
    shapes: dict[str, list[int]] = field(default_factory=dict)
    version: int = VERSION

    def to_dict(self) -> dict[str, Any]:
        """The plan as plain data."""
        return asdict(self)

    @classmethod
    def from_dict(cls, content: Mapping[str, Any], key: str = 'plan') -> Plan:
        """The plan that :meth:`to_dict` gave.

        Args:
            content: the data.
            key: where it comes from, for messages.

        Raises:
            ConfigError: for anything else.
        """
        try:
            values = dict(content)
            if values['version'] != VERSION:
                raise ConfigError(f'{key} must be a plan of version {VERSION}, got version '
                                  f'{shown(values["version"])}')
            values['groups'] = {name: Group(**own) for name, own in values['groups'].items()}
            values['runs'] = {name: Run(**own) for name, own in values['runs'].items()}
            return cls(**values)
        except (KeyError, TypeError, AttributeError) as error:
            raise ConfigError(f'{key} must be a plan, as tracing writes it, got something else '
                              f'({in_one_line(error)})') from None

    @property
    def digest(self) -> str:
        """A hash of what the plan says, as hexadecimal digits; reasons do not count."""
        content = {name: value for name, value in self.to_dict().items() if name != 'frozen'}
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()

    def save(self, path: str | Path) -> None:
        """Write the plan to a JSON file, which appears when it is complete."""
        with replacing(Path(path)) as aside:
            aside.write_text(json.dumps(self.to_dict(), indent=1) + '\n', encoding='utf-8')

    @classmethod
    def load(cls, path: str | Path, key: str = 'plan') -> Plan:
        """Read a plan from a file.

        Args:
            path: the file.
            key: where the path stands in the config, for messages.

        Raises:
            ConfigError: for a file that is missing or holds no plan.
        """
        try:
            content = read_data(path, 'plan')
        except ConfigError as error:
            raise ConfigError(f'{key} must be a plan file, but {error}') from None
        return cls.from_dict(content, f'{key} {path}')

    def difference(self, other: Plan) -> str | None:
        """The first thing in which another plan differs, for people; ``None`` where they say the same."""
        if self.model != other.model:
            return f'it is of a {other.model}, not of a {self.model}'
        for what, one, two in (('group', self.groups, other.groups), ('run', self.runs, other.runs),
                               ('shape of', self.shapes, other.shapes), ('axes of', self.tensors, other.tensors),
                               ('attributes of', self.attributes, other.attributes)):
            mine: Mapping[str, Any] = one
            theirs: Mapping[str, Any] = two
            for name in [*mine, *(name for name in theirs if name not in mine)]:
                if name not in theirs or name not in mine:
                    return f'{what} {name} is {"lacking in it" if name in mine else "new in it"}'
                if mine[name] != theirs[name]:
                    return f'{what} {name} is {_brief(theirs[name])} in it, and {_brief(mine[name])} here'
        return None

    def check_model(self, model: nn.Module, key: str = 'plan') -> None:
        """Make sure that the plan is of this network.

        Args:
            model: the network.
            key: where the plan comes from, for messages.

        Raises:
            ConfigError: naming the first difference.
        """
        found = {name: list(tensor.shape) for name, tensor in model.named_parameters(remove_duplicate=False)}
        problem = None
        if type(model).__name__ != self.model:
            problem = f'it is of a {self.model}, not of a {type(model).__name__}'
        for name in [*self.shapes, *found] if problem is None else []:
            if found.get(name) != self.shapes.get(name):
                problem = f'{name} has shape {self.shapes.get(name)} in it, and {found.get(name)} in the model'
                break
        if problem:
            raise ConfigError(f'{key} must be a plan of this model, but {problem}; trace the model again')


def _brief(value: Any) -> str:
    text = str(asdict(value)) if isinstance(value, (Group, Run)) else str(value)
    return text if len(text) < 200 else f'{text[:200]}...'


def axis_of(node: Node) -> Axis:
    """A node as plain data; free atoms by their names."""
    node = normal(node)
    if isinstance(node, Atom):
        return node.name
    if isinstance(node, Sum):
        return {'sum': [axis_of(part) for part in node.parts]}
    if isinstance(node, Prod):
        return {'prod': [axis_of(own) for own in node.factors]}
    return node.size


def node_of(axis: Axis, groups: Mapping[str, Atom]) -> Node:
    """The node that :func:`axis_of` wrote down.

    Args:
        axis: plain data.
        groups: name of each group -> its atom; a name that is not there raises ``KeyError``.
    """
    if isinstance(axis, str):
        return groups[axis]
    if isinstance(axis, Mapping):
        (kind, own), = axis.items()
        parts = [node_of(part, groups) for part in own]
        return Sum(parts) if kind == 'sum' else Prod(parts)
    return Fix(int(axis))


def groups_in(axis: Axis) -> Iterator[str]:
    """Names of the groups in an axis."""
    if isinstance(axis, str):
        yield axis
    elif isinstance(axis, Mapping):
        for own in axis.values():
            for part in own:
                yield from groups_in(part)


def frozen_axis(axis: Axis, frozen: Mapping[str, int]) -> Axis:
    """An axis with some groups made fixed.

    Args:
        axis: the axis.
        frozen: name of each of these groups -> its size.
    """
    atoms = {name: Atom(0, name) for name in groups_in(axis)}
    for name in atoms:
        atoms[name].bound = Fix(frozen[name]) if name in frozen else None
    return axis_of(_sized(axis, atoms))


def _sized(axis: Axis, atoms: Mapping[str, Atom]) -> Node:
    """The node of an axis whose free atoms' sizes do not matter."""
    for atom in atoms.values():
        atom.size = atom.size or 2
    return node_of(axis, atoms)
