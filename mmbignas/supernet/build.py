"""From a config to a model, with or without trained weights."""

from mmengine.config import Config
from mmengine.registry import MODELS, init_default_scope
from torch import nn

from mmbignas.supernet import Checkpoint, Supernet, load_weights, model_config


def use_scope(cfg: Config) -> None:
    """Let types without a scope be those of the config's ``default_scope``, as a Runner does.

    Args:
        cfg: The config.
    """
    init_default_scope(cfg.get('default_scope') or 'mmengine')


def build_model(cfg: Config) -> nn.Module:
    """Build the model, as a Runner does, and leave the config as it is.

    Args:
        cfg: The config.

    Raises:
        ConfigError: It has no model.
    """
    model_cfg = model_config(cfg, cfg.filename)
    use_scope(cfg)
    return MODELS.build(model_cfg)


def load_supernet(cfg: Config, checkpoint: Checkpoint) -> Supernet:
    """Build the supernet of a config, with trained weights, in eval mode.

    Args:
        cfg: The config.
        checkpoint: Of a run with it.

    Raises:
        ConfigError: The config has no model, the model cannot be handled, or the checkpoint is of another architecture.
    """
    model = build_model(cfg).eval()
    supernet = Supernet(model)
    load_weights(model, checkpoint)
    return supernet
