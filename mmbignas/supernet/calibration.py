"""The running statistics of batch normalisations: recomputed for one subnet, kept and put back."""
from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from functools import partial
from typing import Any

import torch
from mmengine.dist import all_gather
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from mmbignas.errors import ConfigError
from mmbignas.ops import DynamicLayer, SwitchableBatchNorm2d
from mmbignas.supernet.supernet import live_modules
from mmbignas.utils.models import unwrapped


class BNState:
    """A copy of the running statistics of all batch normalisations of a model.

    Evaluating a calibrated subnet in the middle of training must not change the statistics of the training::

        state = BNState(model)
        calibrate_bn(model, batches)
        ...  # evaluate
        state.restore()

    Args:
        model: a model, or a wrapper such as DDP around one.
    """

    def __init__(self, model: nn.Module) -> None:
        # By name: a buffer may be another tensor by the time it is put back, for example after model.to(device).
        self._saved = [(layer, name, buffer.detach().clone())
                       for layer in model.modules() if isinstance(layer, _BatchNorm)
                       for name, buffer in layer.named_buffers(recurse=False)]

    @torch.no_grad()
    def restore(self) -> None:
        """Put the statistics back, in place."""
        for layer, name, value in self._saved:
            full: Any = layer._buffers[name]  # of an elastic layer, the attribute is what the subnet uses
            full.copy_(value)


@torch.no_grad()
def calibrate_bn(model: nn.Module, batches: Iterable[Any]) -> None:
    """Recompute the running statistics of the current subnet's batch normalisations.

    BigNAS (arXiv 2003.11142, section 3.3) does this after training, since the statistics of a supernet are a mixture of
    those of all subnets. Every batch normalisation that the subnet uses normalises each batch by the batch's own
    statistics, as in training; everything else (dropout, drop-path, ...) is in eval mode. Its new running statistics
    are the mean and variance of all values that it was given: over batches of any size, over its calls where several
    pyramid levels share it, and over all processes, each of which brings its own batches, or none. They are pooled in
    float64 from count, mean and sum of squared deviations, so the variance between batches counts too. As always in
    torch, ``running_var`` is the unbiased estimate: the sum of squared deviations over ``count - 1``.

    Only these statistics differ afterwards: not those of other blocks, channels or widths, nor training flags,
    momentum and ``num_batches_tracked``. After an exception the statistics are as they were before. Layers without
    running statistics are ignored. In a distributed run all processes must call this together.

    Args:
        model: a model with ``data_preprocessor``, or a wrapper such as DDP around one; in a supernet, the applied
            subnet counts.
        batches: batches as a dataloader yields them; each goes through ``model.data_preprocessor`` and then through
            ``model`` in mode ``tensor``.

    Raises:
        ConfigError: when there is no batch, or a batch normalisation of the subnet was given fewer than two values
            per channel.
    """
    model = unwrapped(model)
    norms = _live_norms(model)
    layers = [layer for own in norms.values() for layer in own]
    if not layers:
        return
    records = {layer: _Record(layer) for layer in layers}
    state, num_batches = BNState(model), 0
    try:
        with _calibration_mode(model, layers), _recording([own[0] for own in norms.values()], records):
            for batch in batches:
                _forward(model, batch)
                num_batches += 1
    finally:
        state.restore()
    moments = {layer: record.pooled() for layer, record in records.items()}
    if _pool_processes(list(moments.values()), num_batches) == 0:
        raise ConfigError('BN calibration has no data; give it at least one image')
    _check_counts({name: max(int(moments[layer][0].max()) for layer in own) for name, own in norms.items()})
    for layer, (count, mean, squares) in moments.items():
        var = squares / (count - 1).clamp(min=1)
        for buffer, value in zip(_statistics(layer), (mean, var)):
            buffer.copy_(torch.where(count > 0, value.to(buffer.dtype), buffer))


def _live_norms(model: nn.Module) -> dict[str, list[_BatchNorm]]:
    """Path of each normalisation that the subnet uses -> itself and, if it is switchable, those of other widths."""
    norms: dict[str, list[_BatchNorm]] = {}
    seen: set[nn.Module] = set()
    for name, module in live_modules(model):
        if module in seen or not isinstance(module, _BatchNorm):
            continue
        own = [module]
        if isinstance(module, SwitchableBatchNorm2d):
            own += [module.layer(int(width)) for width in module.narrow]
        seen.update(own)
        if module.track_running_stats and module.running_mean is not None:
            norms[name] = own
    return norms


def _statistics(layer: _BatchNorm) -> tuple[Tensor, Tensor]:
    """The statistics of all channels, also of those that the subnet does not use."""
    mean, var = layer._buffers['running_mean'], layer._buffers['running_var']
    assert mean is not None and var is not None
    return mean, var


def _channels(layer: _BatchNorm, count: int) -> slice | Tensor:
    """Where the ``count`` channels in use stand among all channels."""
    return layer.channels_in_use('running_mean', count) if isinstance(layer, DynamicLayer) else slice(count)


def _forward(model: Any, batch: Any) -> None:
    data = model.data_preprocessor(batch, training=False)
    if isinstance(data, Mapping):
        model(**data, mode='tensor')
    else:
        model(*data, mode='tensor')


@contextmanager
def _calibration_mode(model: nn.Module, layers: Iterable[_BatchNorm]) -> Iterator[None]:
    """Eval mode for everything except ``layers``, which expose each call's statistics as their running statistics."""
    changes: list[tuple[nn.Module, dict[str, Any]]] = [(module, dict(training=False)) for module in model.modules()]
    for layer in layers:
        # Momentum 1 would keep an earlier NaN, as 0 times NaN.
        for statistic, value in zip(_statistics(layer), (0, 1)):
            statistic.fill_(value)
        values: dict[str, Any] = dict(training=True, momentum=1.0)
        if hasattr(layer, 'synchronised'):
            values['synchronised'] = False
        elif isinstance(layer, nn.SyncBatchNorm):
            values['forward'] = partial(_BatchNorm.forward, layer)
        changes.append((layer, values))
    with ExitStack() as stack:
        for module, values in changes:
            stack.enter_context(_attributes(module, values))
        yield


@contextmanager
def _attributes(module: nn.Module, values: Mapping[str, Any]) -> Iterator[None]:
    """Give a module these attributes for a while.

    Not by ``module.train()``, which some modules override in order to freeze parts of themselves.
    """
    before = {name: vars(module)[name] for name in values if name in vars(module)}
    for name, value in values.items():
        setattr(module, name, value)
    try:
        yield
    finally:
        for name in values:
            if name in before:
                setattr(module, name, before[name])
            else:
                delattr(module, name)


class _Record:
    """What a normalisation was given: rows count, mean and sum of squared deviations, one column per channel.

    Args:
        layer: the normalisation; its running statistics are those of its last call.
    """

    # Pooling one call costs a dozen operations on tiny tensors, as long as the normalisation itself; many at once
    # cost no more. But a call keeps memory until then.
    MAX_CALLS = 64

    def __init__(self, layer: _BatchNorm) -> None:
        self.layer = layer
        self._calls: list[tuple[int, Tensor, Tensor]] = []
        self._where: slice | Tensor = slice(0)
        mean, _ = _statistics(layer)
        self._moments = torch.zeros(3, len(mean), dtype=torch.float64, device=mean.device)

    def add(self, count: int, width: int) -> None:
        """Add the last call, which had ``count`` values in each of ``width`` channels."""
        if self._calls and (len(self._calls) == self.MAX_CALLS or len(self._calls[0][1]) != width):
            self.pooled()
        mean, var = _statistics(self.layer)
        self._where = _channels(self.layer, width)
        self._calls.append((count, mean[self._where].clone(), var[self._where].clone()))

    def pooled(self) -> Tensor:
        """The moments of all calls."""
        if self._calls:
            counts, means, variances = zip(*self._calls)
            count = self._moments.new_tensor(counts)[:, None]
            mean = torch.stack(means).double()
            own = self._moments[:, self._where].clone()
            _pool_moments(own, torch.stack([count.expand_as(mean), mean, torch.stack(variances) * (count - 1)], 1))
            self._moments[:, self._where] = own
            self._calls.clear()
        return self._moments


@contextmanager
def _recording(norms: Iterable[_BatchNorm], records: Mapping[_BatchNorm, _Record]) -> Iterator[None]:
    """Add each call of ``norms`` to the record of the layer that ran."""

    def layer_of(module: nn.Module, x: Tensor) -> Any:
        return module.layer(x.shape[1]) if isinstance(module, SwitchableBatchNorm2d) else module

    def prepare(module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        x = inputs[0]
        if x.numel() != x.shape[1]:
            return
        # torch refuses to normalise one value per channel (a 1x1 feature of one image) by its own statistics. These
        # are the value itself and 0, and eval mode makes the same of them.
        layer = layer_of(module, x)
        mean, var = _statistics(layer)
        where = _channels(layer, x.shape[1])
        mean[where] = x.flatten()
        var[where] = 0
        layer.training = False

    def record(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        x = inputs[0]
        layer, count = layer_of(module, x), x.numel() // x.shape[1]
        layer.training = True
        if count > 0:
            records[layer].add(count, x.shape[1])

    with ExitStack() as stack:
        for module in norms:
            stack.callback(module.register_forward_pre_hook(prepare).remove)
            stack.callback(module.register_forward_hook(record).remove)
        yield


def _pool_moments(moments: Tensor, others: Tensor) -> None:
    """Add the moments of other values to ``moments``, in place (Chan, Golub and LeVeque, STAN-CS-79-773).

    Args:
        moments: shape ``(3, C)``: number of values, their mean, the sum of their squared deviations from it.
        others: shape ``(N, 3, C)``: the same of N sets of values.
    """
    count, mean, squares = torch.cat([moments[None], others]).unbind(1)
    total = count.sum(0)
    joint = (count * mean).sum(0) / total.clamp(min=1)
    moments[2] = (squares + count * (mean - joint).square()).sum(0)
    moments[1] = joint
    moments[0] = total


def _pool_processes(moments: list[Tensor], num_batches: int) -> int:
    """Pool each of ``moments`` over all processes, in one collective, and return the number of all batches."""
    sizes = [own.numel() for own in moments]
    flat = torch.cat([own.flatten().to(moments[0].device) for own in moments])
    gathered = all_gather(torch.cat([flat, flat.new_tensor([num_batches])]))
    # Every process adds in the order of the ranks, so all get the same, to the last bit.
    shares = torch.stack([values[:-1] for values in gathered]).split(sizes, 1)
    for own, values in zip(moments, shares):
        own.zero_()
        _pool_moments(own, values.view(-1, *own.shape).to(own.device))
    return int(sum(values[-1].item() for values in gathered))


def _check_counts(counts: Mapping[str, int]) -> None:
    """Refuse statistics that do not exist; ``counts`` has each normalisation's values per channel."""
    for few, what in ((0, 'no data'), (1, 'a single value per channel')):
        names = [name for name, count in counts.items() if count == few]
        if names:
            raise ConfigError(f'BN calibration gave {what} to {", ".join(names)}; every batch normalisation of the '
                              'subnet needs at least two values. A layer that the forward pass leaves out should '
                              'have is_active = False, or lie in a block that has')
