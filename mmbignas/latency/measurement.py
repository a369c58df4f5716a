"""The latency of a whole network."""
from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from mmbignas.latency.backends import Backend, CompiledTorchBackend, TorchBackend
from mmbignas.latency.onnx_backends import OnnxRuntimeBackend, TensorRTBackend
from mmbignas.space import ImageSize, SearchSpace
from mmbignas.supernet import image_channels
from mmbignas.supernet.forward_inputs import forward_inputs
from mmbignas.utils.rules import integer, must_be, one_of

# Add your own under its name.
BACKENDS: dict[str, type[Backend]] = {
    backend.name: backend for backend in (TorchBackend, CompiledTorchBackend, OnnxRuntimeBackend, TensorRTBackend)}


@dataclass(frozen=True)
class Latency:
    """The latency of a network, and what was held fixed when it was measured.

    Args:
        median: milliseconds for a batch.
        iqr: interquartile range, milliseconds: half of the measurements lie within.
        samples: number of measurements.
        image_size: height and width in pixels.
        batch_size: images in a batch.
        backend: name of the back end.
        device: model of the GPU or CPU.
        threads: of the CPU.
        dtype: of weights and images.
        versions: of the packages that matter.
    """

    median: float
    iqr: float
    samples: int
    image_size: ImageSize
    batch_size: int
    backend: str
    device: str
    threads: int
    dtype: str
    versions: dict[str, str]


class TensorMode(nn.Module):
    """A model in mode ``tensor``: backbone, neck and the heads' outputs, without decoding them.

    A two-stage detector looks at ``test_cfg.rpn.max_per_img`` regions of each image, whatever its first stage says, so
    that all subnets have as much to do.
    """

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, images: Tensor) -> Any:
        """Compute the outputs for images of shape ``(N, C, H, W)``."""
        if getattr(self.model, 'roi_head', None) is None:
            return self.model(images, mode='tensor')
        with forward_inputs(self.model, images) as inputs:
            return self.model(images, **inputs)


def build_backend(name: str, device: str = 'cpu', threads: int | None = None) -> Backend:
    """Build a back end by its name.

    Raises:
        ConfigError: for an unknown name, or what the back end does not take.
        DependencyError: when a package is missing.
    """
    return BACKENDS[one_of(BACKENDS).check(name, 'backend')](device, threads)


def image_batch(model: nn.Module, image_size: Sequence[int], batch_size: int) -> Tensor:
    """Noise of shape ``(batch_size, C, *image_size)``, always the same.

    Raises:
        ConfigError: for sizes that are not integers from 1.
    """
    [(height, width)] = SearchSpace({}, [image_size]).image_sizes  # checked
    return noise((integer(1).check(batch_size, 'batch_size'), image_channels(model), height, width))


def noise(shape: Sequence[int]) -> Tensor:
    """Normally distributed numbers, always the same."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(0))


def measure_latency(model: nn.Module, image_size: Sequence[int], batch_size: int = 1, backend: str = 'torch',
                    device: str = 'cpu', threads: int | None = None, **options: Any) -> Latency:
    """Measure a whole network in mode ``tensor``, in float32 and eval mode.

    Args:
        model: an ordinary network; it is not changed.
        image_size: height and width in pixels.
        batch_size: images in a batch.
        backend: a name in ``BACKENDS``.
        device: ``cpu``, ``cuda`` or ``cuda:1``.
        threads: of the CPU, set for the duration; ``None`` for as many as torch uses now.
        **options: of :func:`~mmbignas.latency.measure`.

    Raises:
        ConfigError: for a setting that cannot be used.
        DependencyError: when a package is missing.
    """
    images = image_batch(model, image_size, batch_size)
    built = build_backend(backend, device, threads)
    if getattr(model, 'roi_head', None) is not None and isinstance(built, OnnxRuntimeBackend):
        raise must_be('backend', 'torch or torch_compile with a two-stage detector, of which no ONNX is written',
                      backend)
    timing = built.time(TensorMode(model), (images, ), **options)
    return Latency(*timing, (images.shape[2], images.shape[3]), batch_size, **built.conditions)
