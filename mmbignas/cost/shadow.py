"""A copy of a model without data, which can be run on shapes alone."""
from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from mmbignas.cost.liveness import custom_functions
from mmbignas.errors import ConfigError
from mmbignas.models.searchable import SearchableBlocks
from mmbignas.ops import DynamicLayer
from mmbignas.space import Subnet
from mmbignas.supernet import Supernet, image_channels
from mmbignas.supernet.forward_inputs import forward_inputs
from mmbignas.utils.compiled_operations import compiled_operations_on_shapes
from mmbignas.utils.models import tensors_in

Forward = Callable[..., Any]
Watcher = Callable[[str, nn.Module, Forward, tuple, dict], Any]


class UnknownShapesError(ConfigError):
    """A model cannot be run on shapes alone."""


class Shadow:
    """A copy of a supernet on the meta device: its tensors have shapes and no data, and operations need no arithmetic.

    The copy is divided into units, whose costs depend only on their own settings and the shapes of their inputs: the
    blocks of a :class:`~mmbignas.models.SearchableBlocks`, any other searchable module as a whole, the units of an
    elastic network (:class:`~mmbignas.elastic.network_units.ElasticUnits`), and the greatest modules that contain none
    of these.

    Args:
        model: the supernet, or a wrapper such as DDP around one. It is not changed.
        device: ``cpu`` for a copy with data, in single precision, where shapes go by numbers in tensors.

    Attributes:
        supernet: the copy.
        units: path -> module of each unit.
        settings_of: path of a unit with settings -> path of the searchable module, and stage and number of the block
            in it, or ``None`` for the module as a whole, with all searchable modules inside it.
        nested: path of each searchable module -> those of the searchable modules inside it.
        scope: path of the module that is being computed.
        watcher: where set, called in place of a unit's forward, with its path, the module, its forward and the
            arguments.
    """

    def __init__(self, model: nn.Module, device: str = 'meta') -> None:
        self.device = device
        bare = _copy_to(device, Supernet(model).model)
        bare.eval()  # which some detectors return nothing from
        self.supernet = Supernet(bare)
        self.scope: list[str] = ['']
        self._failed = ''
        self.watcher: Watcher | None = None
        owners = list(self.supernet.space.modules)
        self.nested = {owner: [other for other in owners if other != owner and (
            other.startswith(f'{owner}.') or not owner)] for owner in owners}
        self.settings_of: dict[str, tuple[str, tuple[int, int] | None]] = {}
        self.units = dict(self._find_units())
        self._inputs: dict[nn.Module, torch.Size] = {}
        inside = {part for unit in self.units.values() for part in unit.modules()}
        for path, module in self.supernet.model.named_modules():
            module._forward_hooks.clear()
            module._forward_pre_hooks.clear()
            if path in self.units or module not in inside or hasattr(self.supernet.model, 'elastic'):
                module.forward = self._scoped(path, module)
            if isinstance(module, DynamicLayer) and module.shapes_follow_input:
                module.register_forward_pre_hook(self._remember_input)

    def _find_units(self) -> Iterator[tuple[str, nn.Module]]:
        model = self.supernet.model
        searchable: set[nn.Module] = set()
        paths = {module: path for path, module in model.named_modules()}
        elastic: Any = getattr(model, 'elastic', None)
        if hasattr(elastic, 'units'):
            searchable.update(model.get_submodule(path) for path in elastic.units(model).paths)
        for owner in self.supernet.space.modules if not searchable else ():
            if any(owner in inner for inner in self.nested.values()):
                continue
            module = model.get_submodule(owner)
            if isinstance(module, SearchableBlocks) and not self.nested[owner]:
                for block, stage, index in module.searchable_blocks():
                    self.settings_of[paths[block]] = owner, (stage, index)
                    searchable.add(block)
            else:
                self.settings_of[owner] = owner, None
                searchable.add(module)
        containers = {paths[module]: module for module in model.modules()
                      if module not in searchable and any(part in searchable for part in module.modules())}

        def walk(path: str, module: nn.Module) -> Iterator[tuple[str, nn.Module]]:
            if path not in containers:
                yield path, module
                return
            for name, child in module.named_children():
                yield from walk(f'{path}.{name}' if path else name, child)

        yield from walk('', model)

    def _scoped(self, path: str, module: nn.Module) -> Forward:
        original = module.forward

        def forward(*args: Any, **kwargs: Any) -> Any:
            self.scope.append(path)
            try:
                if path in self.units and self.watcher is not None:
                    return self.watcher(path, module, original, args, kwargs)
                return original(*args, **kwargs)
            except Exception:
                self._failed = self._failed or path
                raise
            finally:
                self.scope.pop()
        return forward

    def _remember_input(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        self._inputs[module] = inputs[0].shape

    @property
    def group(self) -> str:
        """The child of the model that is being computed; '' for the model itself."""
        return self.scope[-1].split('.')[0]

    def image(self, size: tuple[int, int]) -> Tensor:
        """One image of ``(height, width)`` pixels."""
        return torch.zeros(1, image_channels(self.supernet.model), *size, device=self.device)

    def run(self, subnet: Subnet, image: Tensor, called: Callable[..., None] | None = None) -> Any:
        """Let a subnet compute an image.

        Args:
            subnet: the subnet.
            image: see :meth:`image`.
            called: told of each call of a ``torch.autograd.Function``, see
                :func:`~mmbignas.cost.liveness.custom_functions`.

        Returns:
            Any: its outputs.

        Raises:
            ConfigError: when it cannot.
        """
        self.supernet.apply({path: subnet[path] for path in subnet})

        def compute(model: nn.Module) -> Any:
            with forward_inputs(model, image) as inputs, custom_functions(called) if called else nullcontext():
                return model(image, **inputs)

        return self._guarded(compute, image)

    def guarded(self, formula: Callable[[nn.Module, Tensor], Any], size: tuple[int, int]) -> Any:
        """What a model's own formula makes of the largest subnet and an image.

        Raises:
            ConfigError: when the model cannot compute the image.
        """
        image = self.image(size)
        self.supernet.apply(self.supernet.space.max())
        return self._guarded(lambda model: formula(model, image), image)

    @torch.no_grad()
    def _guarded(self, compute: Callable[[nn.Module], Any], image: Tensor) -> Any:
        model = self.supernet.model
        self._failed = ''
        try:
            with compiled_operations_on_shapes():
                return compute(model)
        except ConfigError:
            raise
        except Exception as error:  # whatever a model may raise
            raise UnknownShapesError(
                f'model: {self._failed or type(model).__name__} cannot be computed from the shape of one image of '
                f"{list(image.shape[2:])} pixels in mode 'tensor' ({error}); models whose shapes go by the contents of "
                'an image have no cost here') from error

    def parameters(self, module: nn.Module, seen: set[Any] | None = None) -> int:
        """The number of parameters that a module has in the plain network of the current subnet.

        The module must have been computed before: dynamic layers take their input width from it.

        Args:
            module: where to begin.
            seen: modules and parameters to skip; those that are counted are added.

        Raises:
            ConfigError: for a dynamic layer that was not computed.
        """
        seen = set() if seen is None else seen
        if module in seen or not getattr(module, 'is_active', True):
            return 0
        seen.add(module)
        if isinstance(module, DynamicLayer):
            if module.shapes_follow_input:
                return self._plain_parameters(module)
            plain, shapes = 0, module.plain_shapes(())
            for name, parameter in module._parameters.items():
                if parameter is not None and parameter not in seen:
                    seen.add(parameter)
                    plain += math.prod(shapes[name])
            return plain + sum(self.parameters(child, seen) for child in module.children())
        own = {parameter for parameter in module._parameters.values() if parameter is not None} - seen
        seen |= own
        return sum(parameter.numel() for parameter in own) + sum(
            self.parameters(child, seen) for child in module.children())

    def _plain_parameters(self, layer: DynamicLayer) -> int:
        if layer not in self._inputs:
            name = next(path for path, module in self.supernet.model.named_modules() if module is layer)
            raise ConfigError(f"model: the size of {name} is not known, since mode 'tensor' does not compute it; "
                              'dynamic layers that only training needs have no cost')
        return sum(math.prod(shape) for shape in layer.plain_shapes(self._inputs[layer]).values())


def _copy_to(device: str, model: nn.Module) -> nn.Module:
    """A copy on a device, in float32; without data on the meta device."""
    memo: dict[int, Any] = {}
    for module in model.modules():
        for tensor in tensors_in(vars(module)):
            dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
            bare = tensor.detach().to(device, dtype, copy=True)
            memo[id(tensor)] = nn.Parameter(bare, tensor.requires_grad) if isinstance(tensor, nn.Parameter) else bare
    try:
        return copy.deepcopy(model, memo)
    except Exception as error:  # whatever a module may hold
        raise ConfigError(f'model: {type(model).__name__} cannot be copied ({error}), which its cost needs') from error
