"""``init_cfg`` for models that start from the weights of a network of another size."""
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from mmdet.models.dense_heads import RPNHead
from mmengine.logging import MMLogger
from mmengine.model import update_init_info
from torch import Tensor, nn

from mmbignas.errors import ConfigError
from mmbignas.registry import WEIGHT_INITIALIZERS
from mmbignas.supernet.checkpoint import Checkpoint, listed, read_checkpoint
from mmbignas.supernet.transfer import layer_of, overlap, sliced
from mmbignas.utils.configs import type_name
from mmbignas.utils.rules import must_be


class CheckpointInit(ABC):
    """An ``init_cfg`` that takes weights from a checkpoint of a network with the same names and other shapes.

    It stands at the model, or at a part of it together with ``prefix``; in a list of several it has to be the last.
    Like MMEngine's ``Pretrained`` it comes last: no ``init_cfg`` of a module below runs after it.

    Args:
        checkpoint: a file, or an address that MMEngine knows to load.
        prefix: where the module's entries stand in the checkpoint, e.g. ``'backbone'`` for a backbone alone.
        exclude: path or paths of modules that keep their own initialisation, e.g. ``['bbox_head.retina_cls']`` for
            other classes than those of the checkpoint.
        weights: ``ema`` or ``training``, for a run with ``EMAHook``; see :func:`~mmbignas.supernet.read_checkpoint`.

    Raises:
        ConfigError: when the model is initialised, for a checkpoint that cannot be read or does not fit, paths that
            are not there, or a head with another number of classes than the checkpoint has.
    """

    def __init__(self, checkpoint: str, prefix: str = '', exclude: str | Sequence[str] = (),
                 weights: str | None = None) -> None:
        self.checkpoint = checkpoint
        self.prefix = f'{prefix}.' if prefix and not prefix.endswith('.') else prefix
        self.exclude = (exclude,) if isinstance(exclude, str) else tuple(exclude)
        self.weights = weights

    @property
    def key(self) -> str:
        """Its name in messages."""
        return f'{type(self).__name__}.checkpoint'

    def __call__(self, module: nn.Module) -> None:
        """Initialise a module.

        Args:
            module: the model, or the part of it that has this ``init_cfg``.
        """
        self._check_last(module)
        checkpoint = read_checkpoint(self.checkpoint, self.weights)
        if checkpoint.is_elastic:
            raise must_be(self.key, "a checkpoint of another kind than an elastic supernet's, whose channels are in an "
                          'order of their own: load_from goes on with it, and the checkpoint of an exported folder has '
                          'a subnet', self.checkpoint)
        source = {name.removeprefix(self.prefix): value for name, value in checkpoint.state_dict.items()
                  if name.startswith(self.prefix)}
        if not source:
            raise must_be(f'{type(self).__name__}.prefix', f'the beginning of names in {checkpoint.path}', self.prefix)
        paths = dict(module.named_modules())
        for path in self.exclude:
            if path not in paths:
                raise must_be(f'{type(self).__name__}.exclude', 'paths of modules of the model', path)
        target = module.state_dict()
        self._check_classes(module, checkpoint, source, target)
        _initialize_children(module)
        self._fill(*({name: value for name, value in state.items() if not self._excluded(name)}
                     for state in (source, target)))
        if hasattr(module, '_params_init_info'):
            update_init_info(module, init_info=f'{type(self).__name__}: {self.checkpoint}')

    @abstractmethod
    def _fill(self, source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        """Write to the target's tensors."""

    def _excluded(self, name: str) -> bool:
        return any(name == path or name.startswith(f'{path}.') for path in self.exclude)

    def _check_last(self, module: nn.Module) -> None:
        """Refuse a list of ``init_cfg`` in which another entry would overwrite the weights."""
        cfgs: Any = getattr(module, 'init_cfg', None)
        if isinstance(cfgs, (list, tuple)):
            names = [type_name(cfg) for cfg in cfgs]
            if names[-1] != type(self).__name__ or 'Pretrained' in names:
                raise must_be('init_cfg', f'a list with {type(self).__name__} last and no Pretrained, which would '
                              'write over its weights', names)

    def _check_classes(self, module: nn.Module, checkpoint: Checkpoint, source: Mapping[str, Tensor],
                       target: Mapping[str, Tensor]) -> None:
        """Refuse a head that would take the weights of other classes."""
        classes = checkpoint.classes or ()
        for path, child in module.named_modules() if classes else ():
            count: Any = getattr(child, 'num_classes', None)
            if not isinstance(count, int) or count == len(classes) or isinstance(child, RPNHead):
                continue
            below = [name for name in target if name.startswith(f'{path}.'.lstrip('.')) and name in source]
            # These have so many outputs per class, perhaps counting the background as one more.
            layers = [layer_of(name, target)[0] for name in below if target[name].dim() and any(
                target[name].shape[0] * (len(classes) + extra) == source[name].shape[0] * (count + extra)
                for extra in (0, 1))]
            if layers and not any(self._excluded(layer) for layer in layers):
                names = list(dict.fromkeys(layers))
                raise ConfigError(f'{path}.num_classes must be {len(classes)}, as {checkpoint.path} has these classes '
                                  f'({listed(classes)}), got {count}; for other classes, give the layers that predict '
                                  f'them as {type(self).__name__}.exclude, out of {listed(names)}')


def _initialize_children(module: nn.Module) -> None:
    """What MMEngine does after it has called an initializer, which would overwrite the weights."""
    child: Any
    for child in module.children():
        if hasattr(child, 'init_weights') and not getattr(child, 'is_init', False):
            child.init_weights()
            child.is_init = True


@WEIGHT_INITIALIZERS.register_module()
class SupernetCheckpoint(CheckpointInit):
    """A subnet's weights from a checkpoint of its supernet: ``init_cfg=dict(type='mmbignas.SupernetCheckpoint', ...)``.

    They are sliced while they are loaded, by name: first channels, smaller kernels with their transforms, the
    normalisation of the very width where every width has its own. The result is, bit for bit, what
    :func:`~mmbignas.supernet.subnet_state_dict` cuts out of the supernet; for your own layers that override
    ``subnet_state``, use that. The supernet's running statistics are a mixture of those of all subnets, so calibrate
    them.

    Args:
        checkpoint, prefix, exclude, weights: see :class:`CheckpointInit`.
    """

    def _fill(self, source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        try:
            state = sliced(source, target)
        except ValueError as error:
            raise ConfigError(f'{self.key}: {self.checkpoint} is of no supernet of this model; {error}') from None
        for name, value in state.items():
            target[name].copy_(value)
        MMLogger.get_current_instance().info(f'{self.checkpoint}: {len(state)} weights of the subnet were cut out')


@WEIGHT_INITIALIZERS.register_module()
class OverlapCheckpoint(CheckpointInit):
    """What two networks have in common: for a supernet that starts from a smaller or larger ordinary checkpoint.

    The first channels and the centres of kernels are taken by name. The rest keeps its initialisation, and is listed in
    the log.

    Args:
        checkpoint, prefix, exclude, weights: see :class:`CheckpointInit`.
    """

    def _fill(self, source: dict[str, Tensor], target: dict[str, Tensor]) -> None:
        result = overlap(source, target)
        if not result.whole and not result.part:
            raise ConfigError(f'{self.key}: {self.checkpoint} has no entry with the name of one of the model; it has '
                              f'{listed(list(source))}, the model {listed(list(target))}')
        part = [f'{name} ({shape} of {tuple(target[name].shape)})' for name, shape in result.part.items()]
        lines = [f'{self.checkpoint}: {len(result.whole)} of {len(target)} weights were taken whole']
        for what, names in (('in part', part), ('not in the checkpoint', result.untouched),
                            ('in the checkpoint, but not in the model', result.unused)):
            lines += [f'  {what}, {len(names)}: {", ".join(names)}'] if names else []
        MMLogger.get_current_instance().info('\n'.join(lines))
