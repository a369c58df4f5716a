"""Mixed precision on any device, a CPU too."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from torch import nn

from mmbignas.registry import HOOKS, OPTIM_WRAPPERS
from mmbignas.utils.models import unwrapped


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Training in bfloat16 where autocast allows it; weights, gradients, momenta and steps stay in float32.

    bfloat16 has the range of float32, so there is no loss scaler. For float16, MMEngine has ``AmpOptimWrapper``, which
    needs a GPU.

    Args:
        optimizer, accumulative_counts, clip_grad: as for MMEngine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """Within it, forward passes compute in bfloat16."""
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield


@HOOKS.register_module()
class ChannelsLastHook(Hook):
    """Keeps weights of convolutions, and so all feature maps, in memory with the channels of a pixel side by side.

    GPUs compute mixed-precision convolutions faster that way, and CPUs bfloat16 ones. Values are the same up to
    rounding, and checkpoints fit runs with and without the hook. A subnet's slices keep the format, as does a whole
    run: training, validation and tests. Whether it pays for subnets, whose slices are no longer whole blocks of
    memory, is to be measured: ``benchmarks/train_memory.py`` times an iteration with it.
    """

    def before_run(self, runner: Any) -> None:
        """Convert the weights; feature maps follow them."""
        unwrapped(runner.model).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
