"""Exported folders: the same network, whatever the subnet; nothing half-written, nothing overwritten."""
from __future__ import annotations

import copy
import hashlib
import json
import random
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.runner import load_checkpoint
from torch import nn

from mmbignas import ConfigError
from mmbignas.cost import CostModel
from mmbignas.data.pipeline_size import image_sizes_of, image_steps, interpolation_of, pipeline_size
from mmbignas.data.resizing import at_resolution
from mmbignas.export.subnet_folder import SubnetExporter, check_export_folder, read_back
from mmbignas.space import Subnet, load_subnet
from mmbignas.supernet import Supernet
from mmbignas.supernet.hashes import model_hash, space_hash
from mmbignas.utils.identity import config_hash
from mmbignas.utils.sealed_files import is_as_written
from tests.models.same_network import check_plain_layers, tensors
from tests.small_models import big_fpn, big_resnet, big_retina_head, build, element, retinanet, scramble, tower
from tests.supernet.test_outside_module import detector

SIZE = (64, 96)
SPACES: dict[str, tuple[Any, int]] = {
    'as the R18': (retinanet(), 24),
    'kernel transforms, switchable norms, by block': (retinanet(
        big_resnet(kernel_size=element([3] * 5, [7] * 5, 2, 'block_wise'), norm_cfg=dict(type='SwitchableBatchNorm2d'),
                   expand_ratio=[1] * 5, conv_cfg=dict(type='mmbignas.DynamicConv2d', kernel_transform=True)),
        big_fpn(), big_retina_head(reg_tower=tower(out_channel=element([8], [16], 8)))), 18),
    'a backbone from outside': (detector(), 12),
}


def run_config(model: Any) -> Config:
    return Config(dict(default_scope='mmdet', model=model, optim_wrapper=dict(optimizer=dict(type='SGD', lr=0.1)),
                       custom_imports=dict(imports=['mmbignas', 'tests.supernet.test_outside_module'])))


def trained(config: Any, path: Path) -> tuple[nn.Module, Path]:
    """A model with weights, and a checkpoint as MMEngine leaves it."""
    model = scramble(build(config)).eval()
    torch.save(dict(state_dict=model.state_dict(), optimizer=dict(state={0: torch.zeros(9)}), message_hub=dict(),
                    meta=dict(epoch=3, dataset_meta=dict(classes=('a', 'b', 'c')), cfg='model = 1')), path)
    return model, path


@pytest.fixture
def exporter(tmp_path: Path) -> SubnetExporter:
    _, checkpoint = trained(retinanet(), tmp_path / 'supernet.pth')
    return SubnetExporter(run_config(retinanet()), checkpoint, SIZE, log=lambda text: None)


@pytest.mark.parametrize('name', SPACES)
def test_exported_networks_are_the_subnets(tmp_path: Path, name: str) -> None:
    """Outputs bit for bit, MACs by MMEngine's analysis, a strict state dict, plain layers."""
    config, count = SPACES[name]
    model, checkpoint = trained(config, tmp_path / 'supernet.pth')
    supernet, rng = Supernet(model), random.Random(0)
    exporter = SubnetExporter(run_config(config), checkpoint, SIZE, log=lambda text: None)
    images = torch.randn(2, 3, *SIZE)
    for index, subnet in enumerate([supernet.space.max(), supernet.space.min(),
                                    *(supernet.space.sample(rng) for _ in range(count - 2))]):
        folder = tmp_path / f'subnet{index}'
        certificate = exporter.export(subnet, folder)
        plain = MODELS.build(Config.fromfile(str(folder / 'config.py')).model).eval()
        load_checkpoint(plain, str(folder / 'checkpoint.pth'), map_location='cpu', strict=True)
        if name != 'a backbone from outside':
            check_plain_layers(plain)
        supernet.apply(subnet)
        with torch.no_grad():
            outputs, expected = (tensors(network(images, mode='tensor')) for network in (plain, model))
        assert len(outputs) == len(expected) > 0
        assert all(torch.equal(ours, theirs) for ours, theirs in zip(outputs, expected))
        analyzer = FlopAnalyzer(plain, torch.zeros(1, 3, *SIZE))
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        with warnings.catch_warnings():
            warnings.simplefilter('ignore')
            operators = analyzer.by_operator()
        assert certificate['macs'] == operators['conv'] + operators['linear'] > 0
        assert certificate['ops'] == analyzer.total()
        assert certificate['params'] == sum(parameter.numel() for parameter in plain.parameters())
        assert certificate['bit_for_bit'] is True and certificate['max_abs_diff'] == 0
        assert load_subnet(folder / 'certificate.json', supernet.space) == subnet
        assert supernet.space[int(certificate['number'])] == subnet


def test_what_is_in_the_folder(tmp_path: Path, exporter: SubnetExporter) -> None:
    folder = tmp_path / 'new' / 'small'
    certificate = exporter.export(exporter.supernet.space.min(), folder)
    assert sorted(path.name for path in folder.iterdir()) == ['certificate.json', 'checkpoint.pth', 'config.py']
    assert json.loads((folder / 'certificate.json').read_text()) == certificate
    assert certificate['identity'] == dict(
        weights=model_hash(exporter.model), space=space_hash(exporter.space), model=config_hash(exporter.cfg.model))
    assert [path.name for path in folder.parent.iterdir()] == ['small']
    assert is_as_written(folder / 'checkpoint.pth')
    checkpoint = torch.load(folder / 'checkpoint.pth')
    assert checkpoint.keys() == {'meta', 'state_dict'}
    assert checkpoint['meta']['epoch'] == 3
    assert checkpoint['meta']['dataset_meta'] == dict(classes=('a', 'b', 'c'))
    (tmp_path / 'same.py').write_text(checkpoint['meta']['cfg'])
    assert Config.fromfile(str(tmp_path / 'same.py')).to_dict() == Config.fromfile(str(folder / 'config.py')).to_dict()
    content = (folder / 'checkpoint.pth').read_bytes()
    assert certificate['checkpoint'] == dict(bytes=len(content), sha256=hashlib.sha256(content).hexdigest())
    source = (tmp_path / 'supernet.pth').read_bytes()
    assert certificate['source']['sha256'] == hashlib.sha256(source).hexdigest()
    assert len(content) < len(source) / 2
    assert certificate['image_size'] == [64, 96] and [1, 3, 64, 96] in certificate['inputs']
    assert certificate['bn_calibration'] is None


def test_nothing_is_overwritten(tmp_path: Path, exporter: SubnetExporter) -> None:
    for make in (Path.mkdir, Path.touch, lambda path: path.symlink_to('nowhere')):
        path = tmp_path / f'there{len(list(tmp_path.iterdir()))}'
        make(path)
        before = sorted(tmp_path.iterdir())
        with pytest.raises(ConfigError, match='exists, and nothing is overwritten; give the name of a new folder'):
            exporter.export(exporter.supernet.space.min(), path)
        with pytest.raises(ConfigError, match='exists'):
            check_export_folder(path)
        assert sorted(tmp_path.iterdir()) == before


@pytest.mark.parametrize('name', ['work_dirs/config', 'x/../work_dirs/config/'])
def test_the_folder_that_tests_write_to(tmp_path: Path, exporter: SubnetExporter, monkeypatch: pytest.MonkeyPatch,
                                        name: str) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(ConfigError, match='must be another than work_dirs/config, to which tests .* write'):
        exporter.export(exporter.supernet.space.min(), name)
    assert not Path('work_dirs').exists()
    check_export_folder('work_dirs/config/x')


def test_a_folder_that_cannot_be_made(tmp_path: Path, exporter: SubnetExporter) -> None:
    (tmp_path / 'file').touch()
    with pytest.raises(ConfigError, match='file/x: cannot be made'):
        exporter.export(exporter.supernet.space.min(), tmp_path / 'file' / 'x')


def failing_write(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    from mmbignas.export import subnet_folder as exporting

    def save(content: Any, path: Path) -> None:
        path.write_bytes(b'half')
        raise OSError('disk full')
    monkeypatch.setattr(exporting, 'save_sealed', save)
    return OSError


def another_network(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    """As if the wrong statistics had been cut out."""
    from mmbignas.export import subnet_folder as exporting

    def wrong(*args: Any) -> dict[str, torch.Tensor]:
        return {name: value + 1 if name.endswith('running_mean') else value
                for name, value in subnet_state_dict(*args).items()}
    subnet_state_dict = exporting.subnet_state_dict
    monkeypatch.setattr(exporting, 'subnet_state_dict', wrong)
    return RuntimeError


def not_a_number(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    from mmbignas.export import subnet_folder as exporting

    def broken(folder: Path) -> nn.Module:
        plain = read_back(folder)
        nn.init.constant_(plain.bbox_head.retina_reg.bias, float('nan'))
        return plain
    read_back = exporting.read_back
    monkeypatch.setattr(exporting, 'read_back', broken)
    return RuntimeError


def made_meanwhile(monkeypatch: pytest.MonkeyPatch) -> type[Exception]:
    from mmbignas.export import subnet_folder as exporting
    read_back = exporting.read_back

    def slow(folder: Path) -> nn.Module:
        (folder.parents[1] / 'out').mkdir()
        return read_back(folder)
    monkeypatch.setattr(exporting, 'read_back', slow)
    return ConfigError


@pytest.mark.parametrize('fault', [failing_write, another_network, not_a_number, made_meanwhile])
def test_nothing_is_half_written(tmp_path: Path, exporter: SubnetExporter, monkeypatch: pytest.MonkeyPatch,
                                 fault: Callable[[pytest.MonkeyPatch], type[Exception]]) -> None:
    error = fault(monkeypatch)
    with pytest.raises(error):
        exporter.export(exporter.supernet.space.min(), tmp_path / 'out')
    left = sorted(path.name for path in tmp_path.iterdir())
    assert left == (['out', 'supernet.pth'] if fault is made_meanwhile else ['supernet.pth'])
    assert not (tmp_path / 'out').exists() or not any((tmp_path / 'out').iterdir())


def test_folders_above_it_go_too(tmp_path: Path, exporter: SubnetExporter, monkeypatch: pytest.MonkeyPatch) -> None:
    failing_write(monkeypatch)
    with pytest.raises(OSError, match='disk full'):
        exporter.export(exporter.supernet.space.min(), tmp_path / 'new' / 'newer' / 'out')
    assert [path.name for path in tmp_path.iterdir()] == ['supernet.pth']


def test_a_name_that_is_too_long(exporter: SubnetExporter, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match='cannot be made .*too long'):
        exporter.export(exporter.supernet.space.min(), tmp_path / ('n' * 300))


def test_weights_that_are_not_finite(tmp_path: Path) -> None:
    model, _ = trained(retinanet(), tmp_path / 'x.pth')
    state = model.state_dict()
    state['backbone.stem.0.weight'][0, 0] = float('nan')
    torch.save(dict(state_dict=state), tmp_path / 'x.pth')
    exporter = SubnetExporter(run_config(retinanet()), tmp_path / 'x.pth', SIZE)
    with pytest.raises(ConfigError, match='model: its outputs for random images are not finite'):
        exporter.export(exporter.supernet.space.min(), tmp_path / 'out')
    assert not (tmp_path / 'out').exists()


def test_one_exporter_cuts_out_many(tmp_path: Path, exporter: SubnetExporter) -> None:
    """What was exported before does not matter."""
    space = exporter.supernet.space
    order: list[Subnet] = [space.min(), space.max(), space.min()]
    files = []
    for index, subnet in enumerate(order):
        exporter.export(subnet, tmp_path / str(index))
        files.append(torch.load(tmp_path / str(index) / 'checkpoint.pth')['state_dict'])
    assert all(torch.equal(value, files[2][name]) for name, value in files[0].items())


def test_a_detector_with_an_image_size_of_its_own(tmp_path: Path) -> None:
    """Outputs and boxes, at their places in the original image, are those of the subnet at its size."""
    model, checkpoint = trained(retinanet(), tmp_path / 'supernet.pth')
    supernet, rng = Supernet(model), random.Random(0)
    exporter = SubnetExporter(run_config(retinanet()), checkpoint, [[64, 64], [64, 96], [128, 128]],
                              log=lambda text: None)
    sample = DetDataSample(metainfo=dict(img_shape=(120, 90), ori_shape=(240, 180), scale_factor=(.5, .5)))
    data = dict(inputs=[torch.randint(0, 256, (3, 120, 90), dtype=torch.uint8)], data_samples=[sample])
    scales = set()
    for index, subnet in enumerate([exporter.space.min(), *(exporter.space.sample(rng) for _ in range(5))]):
        certificate = exporter.export(subnet, tmp_path / str(index))
        assert tuple(certificate['image_size']) == subnet.image_size
        plain = read_back(tmp_path / str(index))
        supernet.apply(subnet)
        with torch.no_grad(), at_resolution(model, subnet.image_size):
            [expected] = model.test_step(copy.deepcopy(data))
        with torch.no_grad():
            [found] = plain.test_step(copy.deepcopy(data))
        assert len(found.pred_instances) == len(expected.pred_instances) > 0
        assert torch.equal(found.pred_instances.bboxes, expected.pred_instances.bboxes)
        assert torch.equal(found.pred_instances.scores, expected.pred_instances.scores)
        assert found.scale_factor == expected.scale_factor
        assert (found.scale_factor == (.5, .5)) is (subnet.image_size == (128, 128))  # the padded image fits already
        assert found.pred_instances.bboxes[:, 3].max() <= 240 and found.pred_instances.bboxes[:, 2].max() <= 180
        scales.add(found.scale_factor)
    assert len(scales) > 1


def test_a_list_of_one_size_is_what_images_are_resized_to(tmp_path: Path) -> None:
    """As in evaluation; one size alone is what MACs are counted for."""
    model, checkpoint = trained(retinanet(), tmp_path / 'supernet.pth')
    data = dict(inputs=[torch.randint(0, 256, (3, 128, 128), dtype=torch.uint8)])
    for index, (sizes, seen) in enumerate((([[64, 64]], 64), ([64, 64], 128))):
        exporter = SubnetExporter(run_config(retinanet()), checkpoint, sizes, log=lambda text: None)
        certificate = exporter.export(exporter.space.min(), tmp_path / str(index))
        assert certificate['image_size'] == [64, 64]
        assert certificate['macs'] == CostModel(model, [(64, 64)])(exporter.space.min()).macs
        inputs = read_back(tmp_path / str(index)).data_preprocessor(copy.deepcopy(data), False)['inputs']
        assert tuple(inputs.shape[2:]) == (seen, seen)


@pytest.mark.parametrize(('transforms', 'size'), [
    ([dict(type='Resize', scale=(320, 200), keep_ratio=True)], (224, 320)),
    ([dict(type='Resize', scale=100)], (128, 128)),
    ([dict(type='ResizeEdge', scale=256), dict(type='mmpretrain.CenterCrop', crop_size=224)], (224, 224)),
    ([dict(type='Resize', scale=64), dict(type='ResizeEdge', scale=256)], None),
    ([dict(type='LoadImageFromFile')], None),
])
def test_the_size_that_a_pipeline_gives(transforms: list[dict[str, Any]], size: tuple[int, int] | None) -> None:
    cfg = dict(model=dict(data_preprocessor=dict(pad_size_divisor=32)))
    for stage, dataset in (('val', dict(pipeline=transforms)), ('test', dict(dataset=dict(pipeline=transforms)))):
        assert pipeline_size({**cfg, f'{stage}_dataloader': dict(dataset=dataset)}) == size


def test_the_size_that_the_pipelines_of_several_data_sets_give() -> None:
    one, other = ([dict(type='LoadImageFromFile'), dict(type='Resize', scale=(size, 200), keep_ratio=True)]
                  for size in (320, 640))
    for second, size, steps in ((one[1:], (200, 320), dict(
            scale=[320, 200], keep_ratio=True, interpolation='bilinear', backend='cv2')), (other, None, None)):
        dataset = dict(type='ConcatDataset', datasets=[
            dict(type='RepeatDataset', dataset=dict(pipeline=one)), dict(pipeline=second)])
        cfg = dict(model=dict(type='X'), test_dataloader=dict(dataset=dataset))
        assert (pipeline_size(cfg), image_steps(cfg)) == (size, steps)
    mixed = dict(type='MultiImageMixDataset', dataset=dict(pipeline=one), pipeline=other)
    assert pipeline_size(dict(model=dict(type='X'), test_dataloader=dict(dataset=mixed))) == (200, 640)


def test_which_image_sizes_and_interpolation_a_run_has() -> None:
    run = dict(test_cfg=dict(type='SubnetValLoop'), val_cfg=dict(image_size=[[64, 64]], interpolation_type='area'))
    assert (image_sizes_of(run), interpolation_of(run)) == ([[64, 64]], 'area')
    assert (image_sizes_of({}), interpolation_of({})) == (None, 'bicubic')
