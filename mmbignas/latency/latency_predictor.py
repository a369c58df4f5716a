"""Predicted latency of the subnets of a model."""
from __future__ import annotations

from typing import Any

from mmbignas.cost.cost_model import CostModel
from mmbignas.cost.program import Call
from mmbignas.errors import ConfigError
from mmbignas.latency.table import LatencyTable
from mmbignas.space import Subnet
from mmbignas.utils.rules import must_be


class LatencyPredictor:
    """Predicted latency of any subnet of a model on the device of a latency table.

    Args:
        table: a complete table.
        cost_model: of the same model, for the same image sizes or some of them.

    Raises:
        ConfigError: for a table that is not complete, or of another model.
    """

    def __init__(self, table: LatencyTable, cost_model: CostModel) -> None:
        if table.fit is None:
            raise ConfigError(f'{table.path}: is not complete; build it again, which goes on where it stopped')
        for key, value in space_identity(cost_model).items():
            if table.identity.get(key) != value:
                raise must_be(f'{table.path}: {key}', f'{value}, as in this model (build a table for it)',
                              table.identity.get(key))
        self.table, self.fit = table, table.fit
        self._cost_model = cost_model
        self._blocks: dict[tuple, float] = {}

    def __call__(self, subnet: Subnet) -> float:
        """Milliseconds for a batch. Raises ConfigError for a block that the table does not have."""
        total = 0.
        for call in self._cost_model.calls(subnet):
            name = call.path, call.values, call.inputs
            milliseconds = self._blocks.get(name)
            if milliseconds is None:
                milliseconds = self._blocks[name] = self.table.block(block_key(call))
            total += milliseconds
        return self.fit(total)


def block_key(call: Call) -> str:
    """The name of a block in a table."""
    return f'{call.path} {call.values} {call.inputs}'


def space_identity(cost_model: CostModel) -> dict[str, Any]:
    """What tells a model from others, as far as a cost model knows."""
    space = cost_model.space
    # A string: the number often has more digits than other readers of JSON take.
    return dict(subnets=str(space.with_image_sizes(()).size), params=cost_model(space.max()).params)
