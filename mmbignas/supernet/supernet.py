"""The facade through which everything else handles a model with searchable modules."""
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Protocol, runtime_checkable

import torch
from torch import nn

from mmbignas.errors import ConfigError
from mmbignas.space import IMAGE_SIZE, ImageSize, ModuleSettings, ModuleSpace, SearchSpace, Subnet
from mmbignas.supernet.forward_inputs import forward_inputs
from mmbignas.utils.models import training_flags_kept, unwrapped

PROBE_SIZE, PROBE_IMAGES = (64, 64), 2
PROBE_PROPOSALS = 4


@runtime_checkable
class Searchable(Protocol):
    """What a module needs to be searchable: a space, and a way to apply settings from it.

    It is built as its largest subnet. Blocks that the current subnet leaves out must have ``is_active = False``, so
    that BN calibration does not wait for them; :class:`~mmbignas.models.SearchableBlocks` takes care of that.
    """

    search_space: ModuleSpace

    def apply_subnet(self, settings: ModuleSettings) -> None:
        """Compute as this subnet from now on; ``settings`` are canonical."""


class Supernet:
    """A model seen as a search space: applies a subnet to all searchable modules and knows the current one.

    Searchable modules are found by :class:`Searchable`'s two members, by their path in the model, so a module
    from outside this package takes part without being registered anywhere. The model itself is not changed, and
    several facades of one model agree with each other.

    Args:
        model: a model, or a wrapper such as DDP around one.

    Raises:
        ConfigError: when the model has no searchable module.

    Attributes:
        space: the :class:`~mmbignas.space.SearchSpace` of the model.

    Example:
        >>> supernet = Supernet(model)
        >>> supernet.apply(supernet.space.min())  # the model now computes as its smallest subnet
        >>> supernet.current.to_dict()
        {'backbone': {'depth': [1, 1, 1, 1, 1], ...}, ...}
    """

    def __init__(self, model: nn.Module) -> None:
        self.model = unwrapped(model)
        self._modules = {path: module for path, module in self.model.named_modules()
                         if isinstance(getattr(module, 'search_space', None), ModuleSpace)}
        if not self._modules:
            raise ConfigError(f'model: {type(self.model).__name__} has no searchable module; at least one, such as '
                              "backbone=dict(type='mmbignas.BigResNet'), is needed")
        self.space = SearchSpace({path: module.search_space for path, module in self._modules.items()})

    @property
    def current(self) -> Subnet:
        """The subnet that the model computes as; the largest one until another was applied."""
        return Subnet({path: getattr(module, 'current_subnet', None) or module.search_space.max()
                       for path, module in self._modules.items()})

    def apply(self, subnet: Subnet | Mapping[str, Mapping[str, Sequence]]) -> Subnet:
        """Let the model compute as this subnet from now on.

        Args:
            subnet: a subnet, or settings in any accepted form; either is checked first. An image size in it is
                ignored, since a model has none of its own.

        Returns:
            Subnet: the canonical subnet.

        Raises:
            ConfigError: for settings outside the space; the model is then as it was.
        """
        if isinstance(subnet, Mapping):
            subnet = {path: elements for path, elements in subnet.items() if path != IMAGE_SIZE}
        subnet = self.space.canonical(subnet)
        for path, module in self._modules.items():
            module.apply_subnet(subnet[path])
            module.current_subnet = subnet[path]
        return subnet


def live_modules(model: nn.Module, prefix: str = '') -> Iterator[tuple[str, nn.Module]]:
    """The modules that the current subnet uses, with their paths: all except those below an inactive block."""
    if not getattr(model, 'is_active', True):
        return
    yield prefix, model
    for name, child in model.named_children():
        yield from live_modules(child, f'{prefix}.{name}' if prefix else name)


@torch.no_grad()
def probe(supernet: Supernet, subnet: Subnet, image_size: ImageSize | None = None) -> None:
    """Let a subnet compute two images in eval mode, for the forward hooks that the caller has registered.

    They are small. Where a model does not take small ones, those of its own size decide.

    Args:
        supernet: the model; its current subnet and training flags are put back, also after an exception.
        subnet: the subnet to apply.
        image_size: height and width in pixels of the images that the model is for, if they are known.
    """
    model = supernet.model
    before = supernet.current
    with training_flags_kept(model):
        try:
            model.eval()
            supernet.apply(subnet)
            try:
                _compute(model, PROBE_SIZE)
            except (RuntimeError, ValueError):
                if image_size is None:
                    raise
                _compute(model, image_size)
        finally:
            supernet.apply(before)


def _compute(model: nn.Module, image_size: ImageSize) -> None:
    # Two: of one image, a normalisation may be left with a single value.
    images = next(model.parameters()).new_zeros(PROBE_IMAGES, image_channels(model), *image_size)
    with forward_inputs(model, images, PROBE_PROPOSALS) as inputs:
        model(images, **inputs)


def image_channels(model: nn.Module) -> int:
    """Channels of the images that a model takes: those of its first convolution, or 3.

    Before MMDetection's ``Focus`` they are a fourth of that: it puts the four pixels of a square into one.
    """
    for module in model.modules():
        first = next((part.in_channels for part in module.modules() if isinstance(part, nn.Conv2d)), 3)
        if isinstance(module, nn.Conv2d) or type(module).__name__ == 'Focus':
            return first // 4 if type(module).__name__ == 'Focus' else first
    return 3
