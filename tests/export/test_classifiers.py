"""Classifiers on their way out: the same network, whatever the subnet, at the image size of its own."""
from __future__ import annotations

import copy
import pickle
import random
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.registry import MODELS
from torch import nn

from mmbignas import ConfigError
from mmbignas.data.resizing import at_resolution
from mmbignas.export import export_onnx, export_pt2
from mmbignas.export.subnet_folder import SubnetExporter, read_back
from mmbignas.supernet import Supernet, subnet_config, subnet_state_dict
from tests.models.same_network import check_plain_layers, tensors
from tests.small_classifiers import batch, mobile_classifier, regnet_classifier, resnet_classifier
from tests.small_models import build, scramble

pytest.importorskip('mmpretrain')

SIZES = [[64, 64], [96, 96]]
CLASSIFIERS = dict(regnet=regnet_classifier, mobile=mobile_classifier, resnet=resnet_classifier)


def run_config(model: Any) -> Config:
    return Config(dict(default_scope='mmpretrain', model=model, custom_imports=dict(imports=['mmbignas']),
                       val_dataloader=dict(dataset=dict(pipeline=[dict(type='Resize', scale=96)]))))


def trained(name: str, path: Path) -> nn.Module:
    model = scramble(build(CLASSIFIERS[name]())).eval()
    torch.save(dict(state_dict=model.state_dict(), meta=dict(epoch=1)), path)
    return model


@torch.no_grad()
def outputs(model: nn.Module, data: Any) -> list[torch.Tensor]:
    """What becomes of a batch as a dataloader gives it."""
    return list(tensors(model(**model.data_preprocessor(copy.deepcopy(data), False), mode='tensor')))


@pytest.mark.parametrize('name', CLASSIFIERS)
def test_exported_classifiers_are_the_subnets(tmp_path: Path, name: str) -> None:
    """Outputs bit for bit from raw images on, MACs by MMEngine's analysis, plain layers."""
    supernet, rng = Supernet(trained(name, tmp_path / 'x.pth')), random.Random(0)
    exporter = SubnetExporter(run_config(CLASSIFIERS[name]()), tmp_path / 'x.pth', SIZES, log=lambda text: None)
    data, sizes = batch([0, 1, 2], (96, 96)), set()
    for index, subnet in enumerate([exporter.space.max(), exporter.space.min(),
                                    *(exporter.space.sample(rng) for _ in range(18))]):
        certificate = exporter.export(subnet, tmp_path / str(index))
        plain = read_back(tmp_path / str(index))
        check_plain_layers(plain)
        supernet.apply(subnet)
        with at_resolution(supernet.model, subnet.image_size):
            expected = outputs(supernet.model, data)
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs(plain, data), expected, strict=True))
        assert subnet.image_size is not None
        sizes.add(subnet.image_size)
        assert certificate['image_size'] == certificate['subnet_settings']['image_size'] == list(subnet.image_size)
        assert exporter.space[int(certificate['number'])] == subnet and certificate['bit_for_bit'] is True
        inputs = plain.data_preprocessor(copy.deepcopy(data), False)['inputs'][:1]
        assert inputs.shape[2:] == subnet.image_size
        analyzer = FlopAnalyzer(plain, inputs)
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            operators = analyzer.by_operator()
        assert certificate['macs'] == operators['conv'] + operators['linear'] > 0
        # The data pipeline gives 96x96: the smaller size alone takes work of the preprocessor.
        resized = 'ResizedDataPreprocessor' in (tmp_path / str(index) / 'config.py').read_text()
        assert resized is (subnet.image_size == (64, 64))
    assert len(sizes) == 2


def resized(**kwargs: Any) -> dict[str, Any]:
    return {**dict(type='mmbignas.ResizedDataPreprocessor', image_size=[32, 48],
                   preprocessor=dict(type='mmpretrain.ClsDataPreprocessor', mean=[1.] * 3, std=[2.] * 3,
                                     pad_size_divisor=16)), **kwargs}


def test_the_preprocessor_is_itself(tmp_path: Path) -> None:
    """Its class, attributes, state and device; and a copy of it resizes by itself."""
    from mmpretrain.models import ClsDataPreprocessor
    model = build(dict(regnet_classifier(), data_preprocessor=resized(), train_cfg=dict(augments=dict(
        type='Mixup', alpha=0.5))))
    preprocessor = model.data_preprocessor
    assert type(preprocessor) is ClsDataPreprocessor and not preprocessor.state_dict()
    assert preprocessor.pad_size_divisor == 16 and preprocessor.mean.flatten().tolist() == [1., 1., 1.]
    assert preprocessor.batch_augments is not None  # what the classifier added
    data = dict(inputs=torch.randint(0, 256, (2, 3, 64, 96), dtype=torch.uint8))
    expected = preprocessor(data)['inputs']
    for other in (copy.deepcopy(model).data_preprocessor, pickle.loads(pickle.dumps(preprocessor))):
        assert torch.equal(other(data)['inputs'], expected) and expected.shape == (2, 3, 32, 48)
        resizer = next(iter(other._forward_hooks.values())).__self__
        assert resizer.preprocessor is other


@pytest.mark.parametrize(('change', 'message'), [
    (dict(preprocessor=dict(mean=[1.])), 'data_preprocessor.preprocessor must be the config of a data '),
    (dict(image_size=[32, 40]), r'image_size must be .* multiples of 16 .*, got \[32, 40\]'),
    (dict(interpolation_type='cubic'), "interpolation must be one of .*, got 'cubic'"),
])
def test_what_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        MODELS.build(resized(**change))


def plain_networks(name: str, *kinds: str) -> list[nn.Module]:
    """Subnets as networks: the largest (``max``), the smallest (``min``), random ones."""
    config = CLASSIFIERS[name]()
    model = scramble(build(config)).eval()
    supernet, rng, networks = Supernet(model), random.Random(1), []
    for kind in kinds:
        subnet = supernet.space.sample(rng) if kind == 'random' else getattr(supernet.space, kind)()
        plain = MODELS.build(subnet_config(config, model, subnet))
        plain.load_state_dict(subnet_state_dict(model, plain))
        networks.append(plain.eval())
    return networks


@pytest.mark.parametrize(('name', 'kinds'), [('mobile', ('min', 'random')), ('regnet', ('max', ))])
def test_onnx(tmp_path: Path, name: str, kinds: tuple[str, ...]) -> None:
    """Raw logits, in a session of the test's own, for another number of images than the file was traced with."""
    onnx, runtime = pytest.importorskip('onnx'), pytest.importorskip('onnxruntime')
    pytest.importorskip('onnxscript')
    networks = plain_networks(name, *kinds)
    for index, plain in enumerate(networks):
        path = tmp_path / f'{index}.onnx'
        check = export_onnx(plain, path, (64, 64), classes=list('abcde'))
        assert check.outputs == ['logits'] and check.boxes is None
        images = torch.randn(3, 3, 64, 64, generator=torch.Generator().manual_seed(9))
        [logits] = runtime.InferenceSession(str(path), providers=['CPUExecutionProvider']).run(
            ['logits'], dict(images=images.numpy()))
        with torch.no_grad():
            [expected] = tensors(plain(images))
        assert logits.shape[0] == 3
        assert (torch.from_numpy(logits) - expected).abs().max() <= 1e-4 * expected.abs().max()
        facts = {item.key: item.value for item in onnx.load(path).metadata_props}
        assert facts['mean'] == '[120.0, 120.0, 120.0]' and facts['classes'] == '["a", "b", "c", "d", "e"]'
    with pytest.raises(ConfigError, match='model must be a single-stage detector .*, got .ImageClassifier'):
        export_onnx(networks[0], tmp_path / 'boxes.onnx', (64, 64), boxes=True)
    assert not (tmp_path / 'boxes.onnx').exists()


def test_pt2(tmp_path: Path) -> None:
    [plain] = plain_networks('regnet', 'max')
    export_pt2(plain, tmp_path / 'x.pt2', (64, 64))
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        [ours] = torch.export.load(tmp_path / 'x.pt2').module()(images)
        [theirs] = tensors(plain(images))
    assert torch.allclose(ours, theirs, rtol=1e-4, atol=1e-4)
