"""Predicted latency of the subnets of a model."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from mmbignas.cost.cost_model import CostModel
from mmbignas.cost.program import Call
from mmbignas.errors import ConfigError
from mmbignas.latency.table import SETTINGS, LatencyTable
from mmbignas.space import Subnet
from mmbignas.utils.identity import differences, listed_differences, settings_of
from mmbignas.utils.rules import must_be

WITHOUT_TIME = ('data_preprocessor', 'train_cfg', 'test_cfg')  # parts of a model's config


class LatencyPredictor:
    """Predicted latency of any subnet of a model on the device of a latency table.

    Args:
        table: a complete table.
        cost_model: of the same model, for the same image sizes or some of them.
        model_cfg: config of that model, which must be as the table was built for; ``None`` where there is none.

    Raises:
        ConfigError: for a table that is not complete, or of another model.
    """

    def __init__(self, table: LatencyTable, cost_model: CostModel, model_cfg: Mapping[str, Any] | None = None) -> None:
        if table.fit is None:
            raise ConfigError(f'{table.path}: is not complete; build it again, which goes on where it stopped')
        for key, value in space_identity(cost_model).items():
            if table.identity.get(key) != value:
                raise must_be(f'{table.path}: {key}', f'{value}, as in this model (build a table for it)',
                              table.identity.get(key))
        found = table.identity.get(SETTINGS)
        differing = [] if model_cfg is None else differences(
            found if isinstance(found, Mapping) else {}, network_settings(model_cfg))
        if differing:
            raise ConfigError(f'{table.path}: was measured with another network, which differs in '
                              f'{listed_differences(differing)}; build a table for this one')
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


def network_settings(model_cfg: Mapping[str, Any]) -> dict[str, Any]:
    """The settings of a model that its latency may depend on: all but those of images, training and boxes."""
    network = {name: value for name, value in model_cfg.items() if name not in WITHOUT_TIME}
    return {name: value for name, value in settings_of(model=network).items() if '.loss' not in name}


def space_identity(cost_model: CostModel) -> dict[str, Any]:
    """What tells a model from others, as far as a cost model knows."""
    space = cost_model.space
    # A string: the number often has more digits than other readers of JSON take.
    return dict(subnets=str(space.with_image_sizes(()).size), params=cost_model(space.max()).params)
