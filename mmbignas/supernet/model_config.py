"""The model of a run's config, as MMEngine's Runner builds it."""
from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmbignas.errors import ConfigError


def model_config(cfg: Mapping[str, Any], key: str) -> Any:
    """The config of the model, with the data preprocessor that may stand beside it, as in configs of MMPretrain.

    As in MMEngine's ``Runner``, one that stands in the model has the precedence.

    Args:
        cfg: the config of a run; not changed.
        key: where the config comes from, for messages.

    Returns:
        a copy, since detectors write into theirs.

    Raises:
        ConfigError: for a config without a model.
    """
    if not isinstance(cfg.get('model'), Mapping):
        raise ConfigError(f'{key}: the config has no model (keys: {", ".join(cfg) or "none"}); allowed: configs with '
                          'model=dict(type=...)')
    model_cfg = copy.deepcopy(cfg['model'])
    if cfg.get('data_preprocessor') is not None:
        model_cfg.setdefault('data_preprocessor', copy.deepcopy(cfg['data_preprocessor']))
    return model_cfg
