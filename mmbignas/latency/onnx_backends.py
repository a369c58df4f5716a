"""What runs a network when its latency is measured: ONNX Runtime, and TensorRT through it."""
from __future__ import annotations

from collections.abc import Callable
from typing import Any, ClassVar

import torch
from torch import nn

from mmbignas.dependencies import require
from mmbignas.errors import ConfigError, DependencyError
from mmbignas.export.onnx import export
from mmbignas.latency.backends import Backend, moved, plain_copy
from mmbignas.utils.models import tensors_in

GPU_INSTALL = 'pip install onnxruntime-gpu in place of onnxruntime'


class OnnxRuntimeBackend(Backend):
    """ONNX Runtime, on the CPU or with CUDA.

    Inputs and outputs stay on the device, so that copies to and from the host do not count. What the execution
    provider cannot run is an error, never left to another provider.
    """

    name = 'onnxruntime'
    providers: ClassVar[dict[str, str]] = {'cpu': 'CPUExecutionProvider', 'cuda': 'CUDAExecutionProvider'}

    def __init__(self, device: str = 'cpu', threads: int | None = None) -> None:
        super().__init__(device, threads)
        self._runtime = require('onnxruntime', f'the latency back end {self.name}', 'mmbignas[onnx]')
        require('onnxscript', f'the latency back end {self.name}', 'mmbignas[onnx]')  # torch exports with it
        self.provider = self.providers[self.device.type]
        available = self._runtime.get_available_providers()
        if self.provider not in available:
            raise DependencyError(f'the latency back end {self.name} on {device} needs {self.provider}, and the '
                                  f'installed onnxruntime has only {", ".join(available)}: {GPU_INSTALL}')

    def prepare(self, module: nn.Module, inputs: tuple) -> Callable[[], Any]:
        cpu = torch.device('cpu')
        session = self._session(export(plain_copy(module, cpu), moved(inputs, cpu)))
        binding, kind, index = session.io_binding(), self.device.type, self.device.index or 0
        values = [self._runtime.OrtValue.ortvalue_from_numpy(tensor.numpy(force=True), kind, index)
                  for tensor in tensors_in(inputs)]
        for node, value in zip(session.get_inputs(), values, strict=True):
            binding.bind_ortvalue_input(node.name, value)
        for node in session.get_outputs():
            binding.bind_output(node.name, kind, index)

        def run(_alive: Any = values) -> Any:  # the binding does not keep its inputs' memory alive
            session.run_with_iobinding(binding)
            return binding.get_outputs()

        return run

    def _session(self, model: bytes) -> Any:
        options = self._runtime.SessionOptions()
        options.intra_op_num_threads = self.threads
        if self.device.type != 'cpu':
            options.add_session_config_entry('session.disable_cpu_ep_fallback', '1')
        provider = (self.provider, {'device_id': self.device.index or 0} if self.device.type == 'cuda' else {})
        try:
            session = self._runtime.InferenceSession(model, options, providers=[provider])
        except Exception as error:
            raise ConfigError(f'backend: {self.name} cannot run the network on {self.device} '
                              f'({" ".join(str(error).split())})') from error
        if session.get_providers()[0] != self.provider:
            raise DependencyError(f'the latency back end {self.name} on {self.device} needs {self.provider}, which '
                                  'cannot be loaded; onnxruntime has written why')
        session.disable_fallback()
        return session

    @property
    def versions(self) -> dict[str, str]:
        return {**super().versions, 'onnxruntime': self._runtime.__version__}


class TensorRTBackend(OnnxRuntimeBackend):
    """TensorRT, as an execution provider of ONNX Runtime."""

    name = 'tensorrt'
    devices = ('cuda', )
    providers = {'cuda': 'TensorrtExecutionProvider'}

    def __init__(self, device: str = 'cuda', threads: int | None = None) -> None:
        super().__init__(device, threads)
        # Its libraries have to be loaded before onnxruntime looks for them.
        self._tensorrt = require('tensorrt', f'the latency back end {self.name}', 'tensorrt')

    @property
    def versions(self) -> dict[str, str]:
        return {**super().versions, 'tensorrt': self._tensorrt.__version__}
