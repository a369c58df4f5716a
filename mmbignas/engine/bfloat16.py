"""Mixed precision on any device, a CPU too."""
from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from mmengine.optim import OptimWrapper
from mmengine.runner import autocast
from torch import nn

from mmbignas.registry import OPTIM_WRAPPERS


@OPTIM_WRAPPERS.register_module()
class BFloat16OptimWrapper(OptimWrapper):
    """Training in bfloat16 where autocast allows it; weights, gradients, momenta and steps stay in float32.

    bfloat16 has the range of float32, so there is no loss scaler. For float16, MMEngine has ``AmpOptimWrapper``, which
    needs a GPU.

    Args:
        optimizer, accumulative_counts, clip_grad: as of MMEngine's ``OptimWrapper``.
    """

    @contextmanager
    def optim_context(self, model: nn.Module) -> Iterator[None]:
        """In it, forward passes compute in bfloat16.

        Args:
            model: the model, or a wrapper around it.
        """
        with super().optim_context(model), autocast(dtype=torch.bfloat16):
            yield
