"""A forward pass of a small image, to see what reaches which module."""
from __future__ import annotations

import torch
from torch import nn

from mmbignas.space import Subnet
from mmbignas.supernet.supernet import Supernet

PROBE_SIZE = 64


@torch.no_grad()
def probe(supernet: Supernet, subnet: Subnet) -> None:
    """Let a subnet compute a small image in eval mode, for the forward hooks that the caller has registered.

    Args:
        supernet: the model; its current subnet and training flags are put back, also after an exception.
        subnet: the subnet to apply.
    """
    model = supernet.model
    before, training = supernet.current, {module: module.training for module in model.modules()}
    try:
        model.eval()
        supernet.apply(subnet)
        model(next(model.parameters()).new_zeros(1, image_channels(model), PROBE_SIZE, PROBE_SIZE), mode='tensor')
    finally:
        supernet.apply(before)
        for module, mode in training.items():
            module.training = mode


def image_channels(model: nn.Module) -> int:
    """Channels of the images that a model takes: those of its first convolution, or 3."""
    return next((module.in_channels for module in model.modules() if isinstance(module, nn.Conv2d)), 3)
