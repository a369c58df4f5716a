"""Convolutions in channels-last memory format."""
from __future__ import annotations

from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper

from mmbignas.registry import HOOKS


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keeps weights of convolutions, and so all feature maps, in memory with the channels of a pixel side by side.

    GPUs compute mixed-precision convolutions faster that way, and CPUs bfloat16 ones. Values are the same up to
    rounding, and checkpoints fit runs with and without the hook. A subnet's slices keep the format, as does a whole
    run: training, validation and tests. Whether it pays for subnets, whose slices are no longer whole blocks of
    memory, is to be measured: ``benchmarks/train_memory.py`` times an iteration with it.
    """

    def before_run(self, runner: Any) -> None:
        """Convert the weights; feature maps follow them.

        Args:
            runner: the runner.
        """
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        model.to(memory_format=torch.channels_last)
