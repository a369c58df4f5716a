"""Back ends compute what the network computes, leave everything as it was, and say what they lack."""
from __future__ import annotations

import copy
import importlib
import random
import re
import shutil
import sys
from importlib.util import find_spec
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from torch import Tensor, nn
from torch.nn import functional as F

from mmbignas import ConfigError, DependencyError
from mmbignas.export.onnx import export
from mmbignas.latency import BACKENDS, build_backend, measure_latency
from mmbignas.latency.backends import cpu_name
from mmbignas.latency.measurement import TensorMode, image_batch
from mmbignas.models.blocks import ConvTower
from mmbignas.supernet import Supernet, subnet_config
from tests.small_models import build, retinanet, scramble

needs_onnx = pytest.mark.skipif(not (find_spec('onnxruntime') and find_spec('onnxscript')),
                                reason='needs the extra mmbignas[onnx]')
QUICK = dict(seconds=0., min_samples=1)


def flat(outputs: Any) -> list[Tensor]:
    if isinstance(outputs, (list, tuple)):
        return [tensor for output in outputs for tensor in flat(output)]
    return [outputs if isinstance(outputs, Tensor) else torch.from_numpy(outputs.numpy())]


def plain_detector() -> nn.Module:
    config = retinanet()
    supernet = Supernet(build(config))
    subnet = supernet.space.sample(random.Random(1))
    return scramble(MODELS.build(subnet_config(config, supernet.model, subnet)))


@pytest.fixture(scope='module')
def onnx_linear() -> bytes:
    return export(nn.Linear(4, 3), (torch.zeros(2, 4), ))


def check_outputs(name: str, module: nn.Module, inputs: tuple) -> None:
    run = build_backend(name).prepare(module, inputs)
    with torch.no_grad():
        expected = flat(copy.deepcopy(module).double().eval()(*inputs_in_float64(inputs)))
    for _ in range(2):  # the first run must not spoil the inputs
        outputs = flat(run())
        assert len(outputs) == len(expected) > 0
        for output, right in zip(outputs, expected):
            assert output.dtype == torch.float32
            torch.testing.assert_close(output.double(), right, rtol=1e-4, atol=1e-4 * float(right.abs().max()))


def inputs_in_float64(inputs: Any) -> Any:
    return inputs.double() if isinstance(inputs, Tensor) else type(inputs)(map(inputs_in_float64, inputs))


@pytest.mark.parametrize('name', ['torch', pytest.param('onnxruntime', marks=needs_onnx)])
def test_outputs_of_a_detector(name: str) -> None:
    detector = plain_detector().train()
    check_outputs(name, TensorMode(detector), (image_batch(detector, (64, 96), 2), ))


@pytest.mark.parametrize('name', ['torch', pytest.param('onnxruntime', marks=needs_onnx)])
def test_outputs_of_a_tower_that_takes_a_list(name: str) -> None:
    tower = ConvTower(6, 3, depth=[2], out_channel=[5], kernel_size=[3], conv_cfg=None, norm_cfg=dict(type='BN'),
                      key='tower')
    check_outputs(name, scramble(tower), ([torch.randn(2, 6, size, size) for size in (9, 5, 3)], ))


@pytest.mark.skipif(shutil.which('c++') is None, reason='compiles C++')
def test_outputs_of_a_compiled_module() -> None:
    check_outputs('torch_compile', nn.Linear(4, 3), (torch.randn(2, 4), ))


class Probe(nn.Module):
    """Writes down how it is called."""

    def __init__(self, log: list) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3)
        self.norm = nn.BatchNorm2d(4)
        self.log = log

    def __deepcopy__(self, memo: dict) -> Probe:
        twin = Probe(self.log)
        twin.load_state_dict(self.state_dict())
        return twin

    def forward(self, x: Tensor, mode: str) -> Tensor:
        self.log.append((torch.get_num_threads(), self.norm.training, torch.is_grad_enabled(), x.shape, x.dtype, mode))
        if len(self.log) == 3:
            raise KeyboardInterrupt
        return F.relu(self.norm(self.conv(x)))


def test_measuring_changes_nothing() -> None:
    log: list = [None] * 3
    model = Probe(log).double()
    model.train()
    model.norm.eval()
    state = {name: value.clone() for name, value in model.state_dict().items()}
    before = torch.get_num_threads()
    for threads in (2, 1, None):
        log[3:] = []
        latency = measure_latency(model, (32, 48), 2, threads=threads, **QUICK)
        assert latency.threads == (threads or before)
        assert set(log[3:]) == {(threads or before, False, False, (2, 3, 32, 48), torch.float32, 'tensor')}
        assert len(log) == 3 + 3
        assert torch.get_num_threads() == before
    log.clear()
    with pytest.raises(KeyboardInterrupt):
        measure_latency(model, (32, 48), threads=2, **QUICK)
    assert torch.get_num_threads() == before
    assert (model.training, model.conv.training, model.norm.training) == (True, True, False)
    assert all(torch.equal(value, state[name]) and value.dtype == state[name].dtype
               for name, value in model.state_dict().items())


def test_what_was_held_fixed_is_said() -> None:
    latency = measure_latency(Probe([None] * 3), (16, 24), 3, threads=1, **QUICK)
    assert (latency.image_size, latency.batch_size, latency.backend, latency.threads) == ((16, 24), 3, 'torch', 1)
    assert (latency.dtype, latency.versions) == ('float32', dict(torch=torch.__version__))
    assert latency.device == cpu_name() != ''
    assert latency.samples == 1


@pytest.mark.parametrize(('arguments', 'message'), [
    (dict(backend='tflite'), f"backend must be one of {', '.join(BACKENDS)}, got 'tflite'"),
    (dict(device='gpu'), "device must be one of cpu, cuda with backend torch, got 'gpu'"),
    (dict(device='meta'), "device must be one of cpu, cuda with backend torch, got 'meta'"),
    (dict(device='cuda:99'), "CUDA devices that torch sees, got 'cuda:99'"),
    (dict(backend='tensorrt'), "device must be one of cuda with backend tensorrt, got 'cpu'"),
    (dict(threads=0), 'threads must be an integer >= 1, got 0'),
    (dict(batch_size=0), 'batch_size must be an integer >= 1, got 0'),
    (dict(image_size=(64, )), 'image_size must be [height, width] in pixels, two integers >= 1, got (64,)'),
])
def test_settings_that_cannot_be_used(arguments: dict[str, Any], message: str) -> None:
    log: list = [None] * 3
    with pytest.raises(ConfigError, match=re.escape(message)):
        measure_latency(Probe(log), **{'image_size': (32, 48), **arguments})
    assert len(log) == 3  # before anything was run


@needs_onnx
@pytest.mark.parametrize('package', ['onnxruntime', 'onnxscript'])
def test_a_missing_package_is_named(monkeypatch: pytest.MonkeyPatch, package: str) -> None:
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(DependencyError, match=rf'onnxruntime needs {package}.*: pip install "mmbignas\[onnx\]"'):
        build_backend('onnxruntime')


@needs_onnx
@pytest.mark.parametrize(('name', 'provider'), [('onnxruntime', 'CUDAExecutionProvider'),
                                                ('tensorrt', 'TensorrtExecutionProvider')])
def test_a_missing_provider_is_named(monkeypatch: pytest.MonkeyPatch, name: str, provider: str) -> None:
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr('onnxruntime.get_available_providers', lambda: ['CPUExecutionProvider'])
    with pytest.raises(DependencyError, match=f'{name} on cuda needs {provider}.*onnxruntime-gpu'):
        build_backend(name, 'cuda')


@needs_onnx
def test_another_provider_never_takes_over(monkeypatch: pytest.MonkeyPatch, onnx_linear: bytes) -> None:
    """A provider whose libraries are not there leaves a session that computes on the CPU."""
    real = importlib.import_module('onnxruntime').InferenceSession
    monkeypatch.setattr(torch.cuda, 'device_count', lambda: 1)
    monkeypatch.setattr('onnxruntime.get_available_providers', lambda: ['CUDAExecutionProvider'])
    monkeypatch.setattr('onnxruntime.InferenceSession', lambda model, options, providers: real(model))
    monkeypatch.setattr('mmbignas.latency.onnx_backends.export', lambda module, inputs: onnx_linear)
    with pytest.raises(DependencyError, match='needs CUDAExecutionProvider, which cannot be loaded'):
        build_backend('onnxruntime', 'cuda').prepare(nn.Linear(4, 3), (torch.zeros(2, 4), ))


@needs_onnx
def test_a_network_that_a_provider_cannot_run(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr('mmbignas.latency.onnx_backends.export', lambda module, inputs: b'not ONNX')
    with pytest.raises(ConfigError, match='backend: onnxruntime cannot run the network on cpu'):
        build_backend('onnxruntime').prepare(nn.Linear(4, 3), (torch.zeros(2, 4), ))


@needs_onnx
def test_a_session_has_the_threads(monkeypatch: pytest.MonkeyPatch, onnx_linear: bytes) -> None:
    real, seen = importlib.import_module('onnxruntime').InferenceSession, []

    def session(model: bytes, options: Any, providers: list) -> Any:
        seen.append(options.intra_op_num_threads)
        return real(model, options, providers=providers)

    monkeypatch.setattr('onnxruntime.InferenceSession', session)
    monkeypatch.setattr('mmbignas.latency.onnx_backends.export', lambda module, inputs: onnx_linear)
    build_backend('onnxruntime', threads=3).prepare(nn.Linear(4, 3), (torch.zeros(2, 4), ))()
    assert seen == [3]
