"""From a config to a model, with or without trained weights."""
from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmbignas.errors import ConfigError
from mmbignas.supernet.checkpoint import Checkpoint, load_weights
from mmbignas.supernet.supernet import Supernet


def model_config(cfg: Mapping[str, Any], key: str) -> Any:
    """A copy of the model's config in that of a run, with the data preprocessor that may stand beside it.

    So it is in configs of MMPretrain. As in MMEngine's ``Runner``, one in the model itself takes precedence. It is a
    copy, since detectors write into theirs. ``key`` says in messages where the config comes from.

    Raises:
        ConfigError: for a config without a model.
    """
    if not isinstance(cfg.get('model'), Mapping):
        raise ConfigError(f'{key}: the config has no model (keys: {", ".join(cfg) or "none"}); give one with '
                          'model=dict(type=...)')
    model_cfg = copy.deepcopy(cfg['model'])
    if cfg.get('data_preprocessor') is not None:
        model_cfg.setdefault('data_preprocessor', copy.deepcopy(cfg['data_preprocessor']))
    return model_cfg


def use_scope(cfg: Config) -> None:
    """Let types without a scope be those of the config's ``default_scope``, as a Runner does."""
    init_default_scope(cfg.get('default_scope') or 'mmengine')


def build_model(cfg: Config) -> nn.Module:
    """Build the model, as a Runner does, and leave the config as it is.

    Raises:
        ConfigError: The config has no model.
    """
    model_cfg = model_config(cfg, cfg.filename)
    use_scope(cfg)
    return MODELS.build(model_cfg)


def load_supernet(cfg: Config, checkpoint: Checkpoint) -> Supernet:
    """Build the supernet of a config, with the weights of a checkpoint, in eval mode.

    Raises:
        ConfigError: The config has no model, the model cannot be handled, or the checkpoint is of another architecture.
    """
    supernet = Supernet(build_model(cfg).eval())
    load_weights(supernet.model, checkpoint)
    return supernet
