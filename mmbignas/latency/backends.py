"""What runs a network when its latency is measured: PyTorch."""
from __future__ import annotations

import copy
import platform
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path
from typing import Any, ClassVar

import torch
from mmengine.utils import apply_to
from torch import Tensor, nn

from mmbignas.latency.timing import Timing, measure
from mmbignas.utils.rules import integer, must_be


class Backend(ABC):
    """A way to run networks, on one device, with a number of threads, in float32.

    Args:
        device: ``cpu``, ``cuda`` or ``cuda:1``.
        threads: of the CPU; ``None`` for as many as torch uses now.

    Raises:
        ConfigError: for a device that does not exist or does not suit the back end, or a wrong number of threads.
        DependencyError: when a package is missing; it says how to install it.

    Attributes:
        name: what configs and tools call it.
        devices: the kinds of devices that it runs on.
        rounds: how often a latency table comes back to each block. A machine that is busy for a while spoils one round
            only; but where preparing a network takes longer than measuring it, one has to be enough.
    """

    name: ClassVar[str]
    devices: ClassVar[tuple[str, ...]] = ('cpu', 'cuda')
    rounds: ClassVar[int] = 1

    def __init__(self, device: str = 'cpu', threads: int | None = None) -> None:
        self.device = self._parse_device(device)
        self.threads = torch.get_num_threads() if threads is None else integer(1).check(threads, 'threads')

    @classmethod
    def _parse_device(cls, name: str) -> torch.device:
        try:
            device = torch.device(name)
        except RuntimeError:
            device = None
        if device is None or device.type not in cls.devices:
            raise must_be('device', f'one of {", ".join(cls.devices)} with backend {cls.name}', name)
        if device.type == 'cuda' and (device.index or 0) >= torch.cuda.device_count():
            raise must_be('device', f'one of the {torch.cuda.device_count()} CUDA devices that torch sees', name)
        return device

    @abstractmethod
    def prepare(self, module: nn.Module, inputs: tuple) -> Callable[[], Any]:
        """Make ready to run.

        Args:
            module: in any mode and on any device; it is not changed.
            inputs: its arguments: tensors, or lists of tensors, nested at will.

        Returns:
            Callable: runs the module once, in eval mode and without gradients, and returns its outputs.
        """

    def synchronize(self) -> None:
        """Wait until the device has done what it was asked for."""
        if self.device.type == 'cuda':
            torch.cuda.synchronize(self.device)

    def time(self, module: nn.Module, inputs: tuple, **options: Any) -> Timing:
        """Prepare a module, see :meth:`prepare`, and measure it, with options of :func:`measure`."""
        before = torch.get_num_threads()
        torch.set_num_threads(self.threads)
        try:
            return measure(self.prepare(module, inputs), self.synchronize, **options)
        finally:
            torch.set_num_threads(before)

    @property
    def versions(self) -> dict[str, str]:
        """The packages that a latency depends on."""
        return dict(torch=torch.__version__)

    @property
    def device_name(self) -> str:
        """The model of the GPU or CPU."""
        return cpu_name() if self.device.type == 'cpu' else torch.cuda.get_device_name(self.device)

    @property
    def conditions(self) -> dict[str, Any]:
        """What is held fixed, as plain data."""
        return dict(backend=self.name, device=self.device_name, threads=self.threads, dtype='float32',
                    versions=self.versions)


class TorchBackend(Backend):
    """PyTorch, operation by operation."""

    name = 'torch'
    rounds = 5

    def prepare(self, module: nn.Module, inputs: tuple) -> Callable[[], Any]:
        return _inference(plain_copy(module, self.device), moved(inputs, self.device))


class CompiledTorchBackend(Backend):
    """PyTorch with ``torch.compile``."""

    name = 'torch_compile'

    def prepare(self, module: nn.Module, inputs: tuple) -> Callable[[], Any]:
        # After some compilations of one class, torch quietly goes back to running it operation by operation.
        torch.compiler.reset()
        return _inference(torch.compile(plain_copy(module, self.device), dynamic=False), moved(inputs, self.device))


def plain_copy(module: nn.Module, device: torch.device) -> nn.Module:
    """A copy in eval mode and float32, on the device."""
    return copy.deepcopy(module).eval().to(device, torch.float32)


def moved(inputs: tuple, device: torch.device) -> tuple:
    """Nested tensors on the device."""
    return apply_to(inputs, lambda item: isinstance(item, Tensor), lambda tensor: tensor.to(device))


def _inference(function: Callable[..., Any], inputs: tuple) -> Callable[[], Any]:
    @torch.inference_mode()
    def run() -> Any:
        return function(*inputs)

    return run


def cpu_name() -> str:
    """The model of the CPU, as far as the system tells."""
    info = Path('/proc/cpuinfo')
    lines = info.read_text().splitlines() if info.exists() else []
    names = [line.split(':', 1)[1].strip() for line in lines if line.startswith('model name')]
    return names[0] if names else platform.processor() or platform.machine()
