"""How a network is run to be traced and checked: repeatable, small, and without leaving a mark."""
from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.logging import MessageHub, MMLogger
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from mmbignas.utils.models import tensors_in

# Detectors with proposals: how many are enough.
LIMITS = {'max_per_img': 6, 'nms_pre': 60, 'max_num': 6}
SAMPLED = 16


@contextmanager
def quiet_run(model: nn.Module, training: bool = False, seed: int = 0) -> Iterator[None]:
    """Within the context, runs of a model are repeatable, without gradients, and change nothing that lasts.

    Args:
        model: the model; its flags, settings and buffers are put back.
        training: whether heads and detectors are in training mode, as many losses need. Normalisations, dropout and
            drop-path never are.
        seed: of all random draws.
    """
    flags = {module: module.training for module in model.modules()}
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    with ExitStack() as stack:
        stack.enter_context(torch.random.fork_rng(devices=[]))
        stack.enter_context(torch.no_grad())
        stack.enter_context(warnings.catch_warnings())
        warnings.simplefilter('ignore')
        stack.enter_context(_silent_logger())
        stack.enter_context(_without_fast_path())
        stack.enter_context(_training_run())
        stack.enter_context(_few_proposals(model))
        torch.manual_seed(seed)
        try:
            _set_flags({module: training and not _draws_or_moves(module) for module in flags})
            yield
        finally:
            _set_flags(flags)
            full = dict(model.named_buffers())
            for name, value in buffers.items():
                if full[name].shape == value.shape:
                    full[name].copy_(value)


def _set_flags(flags: Mapping[nn.Module, bool]) -> None:
    """Set training flags; modules with a ``train`` of their own may prepare something by it."""
    for module, flag in flags.items():
        if type(module).train is not nn.Module.train:
            module.train(flag)
    for module, flag in flags.items():
        module.training = flag


def _draws_or_moves(module: nn.Module) -> bool:
    """Whether a module draws random numbers or moves statistics in training mode."""
    return isinstance(module, (_BatchNorm, _InstanceNorm, nn.modules.dropout._DropoutNd)) or 'Drop' in type(
        module).__name__ and not any(True for _ in module.children())


@contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Within the context, batch normalisations go by the statistics of the batch."""
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(norm, norm.training, vars(norm).get('forward')) for norm in norms]
    try:
        for norm in norms:
            norm.training = True
            if isinstance(norm, nn.SyncBatchNorm):  # refuses the CPU
                norm.forward = partial(_BatchNorm.forward, norm)  # type: ignore[method-assign]
        yield
    finally:
        for norm, flag, forward in before:
            norm.training = flag
            if forward is None:
                vars(norm).pop('forward', None)
            else:
                norm.forward = forward  # type: ignore[method-assign]


@contextmanager
def _silent_logger() -> Iterator[None]:
    loggers = [logging.getLogger(), MMLogger.get_current_instance()]
    before = [logger.level for logger in loggers]
    try:
        for logger in loggers:
            logger.setLevel(logging.ERROR)
        yield
    finally:
        for logger, level in zip(loggers, before):
            logger.setLevel(level)


@contextmanager
def _without_fast_path() -> Iterator[None]:
    """Attention as the sum of its operations."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


@contextmanager
def _training_run() -> Iterator[None]:
    """The progress that some losses ask MMEngine's message hub for."""
    hub = MessageHub.get_current_instance()
    before = dict(hub.runtime_info)
    try:
        for name, value in dict(epoch=0, iter=0, max_epochs=10, max_iters=100).items():
            hub.update_info(name, value)
        yield
    finally:
        hub._runtime_info.clear()
        hub._runtime_info.update(before)


@contextmanager
def _few_proposals(model: nn.Module) -> Iterator[None]:
    """Two-stage detectors with a handful of proposals."""
    changed: list[tuple[Any, str, Any]] = []
    for module in model.modules():
        for name in ('test_cfg', 'train_cfg', 'proposal_cfg'):
            value = vars(module).get(name)
            if isinstance(value, (Mapping, list)):
                changed.append((module, name, value))
                setattr(module, name, _limited(copy.deepcopy(value)))
        samplers: Any = vars(module).get('bbox_sampler')
        for sampler in samplers if isinstance(samplers, list) else [samplers]:
            if isinstance(getattr(sampler, 'num', None), int):
                changed.append((sampler, 'num', sampler.num))
                sampler.num = min(sampler.num, SAMPLED)
    try:
        yield
    finally:
        for owner, name, value in reversed(changed):
            setattr(owner, name, value)


def _limited(cfg: Any) -> Any:
    if isinstance(cfg, list):
        return [_limited(own) for own in cfg]
    if isinstance(cfg, Mapping):
        for name in list(cfg):
            if name in LIMITS and isinstance(cfg[name], int) and cfg[name] > 0:
                cfg[name] = min(cfg[name], LIMITS[name])  # type: ignore[index]
            elif isinstance(cfg[name], (Mapping, list)):
                cfg[name] = _limited(cfg[name])  # type: ignore[index]
    return cfg


def run(model: nn.Module, batch: Mapping[str, Any], mode: str) -> Any:
    """One forward pass of a copy of a batch.

    Args:
        model: the model.
        batch: ``inputs`` and ``data_samples``.
        mode: ``tensor``, ``loss`` or ``predict``.
    """
    return model(**copy.deepcopy(dict(batch)), mode=mode)


def tensor_outputs(model: nn.Module, batch: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors that a model returns in mode ``tensor``."""
    return tensors_in(run(model, batch, 'tensor'))
