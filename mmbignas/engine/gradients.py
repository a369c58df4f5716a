"""Averaging gradients over processes once per iteration."""
from __future__ import annotations

from collections.abc import Iterable

import torch
from mmengine.dist import all_reduce, all_reduce_params, get_world_size
from torch import nn


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Average the gradients over all processes; with one process, do nothing.

    A parameter without a gradient in every process keeps none, so that the optimizer leaves it alone; where only some
    processes lack it, theirs counts as zero.

    Args:
        parameters: the same parameters in the same order in every process.
    """
    if get_world_size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    if not trained:
        return
    present = torch.tensor([float(parameter.grad is not None) for parameter in trained], device=trained[0].device)
    all_reduce(present, 'max')
    gradients = []
    for parameter, anywhere in zip(trained, present.tolist()):
        if anywhere:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
            gradients.append(parameter.grad)
    all_reduce_params(gradients, op='mean')
