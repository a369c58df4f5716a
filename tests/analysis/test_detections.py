"""Pictures of detections, and the tool that draws those of several subnets."""
from __future__ import annotations

import runpy
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import mmcv
import numpy as np
import pytest
import torch
from matplotlib import pyplot as plt
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.analysis import FlopAnalyzer
from mmengine.config import Config
from mmengine.structures import InstanceData

from mmbignas.analysis import draw_subnets
from mmbignas.analysis.figures import COLOURS
from mmbignas.data.calibration_images import CalibrationImages
from mmbignas.supernet import Supernet, calibrate_bn, load_weights, read_checkpoint, subnet_config, subnet_state_dict
from tests.small_models import scramble

ROOT = Path(__file__).parents[2]
SIZES = [(60, 80), (80, 60), (40, 100)]
CLASSES = ['circle', 'square', 'triangle']
TITLES = ['max\n888.88 GMACs at 1024x1344, 888.88 M parameters\n27.61 ms, onnxruntime_cuda on cuda:1',
          'min\n91.90 MMACs at 256x320, 0.80 M parameters']


def noise(size: tuple[int, int], seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (*size, 3), dtype=np.uint8)


def instances(seed: int, count: int = 12, classes: int = 3) -> InstanceData:
    generator = torch.Generator().manual_seed(seed)
    corners = torch.rand(count, 2, generator=generator) * 40
    return InstanceData(bboxes=torch.cat([corners, corners + 5 + torch.rand(count, 2, generator=generator) * 30], 1),
                        labels=torch.randint(classes, (count, ), generator=generator),
                        scores=torch.rand(count, generator=generator))


def predictions(seed: int) -> list[DetDataSample]:
    return [DetDataSample(pred_instances=instances(10 * seed + index)) for index in range(len(SIZES))]


def good_ones(found: InstanceData, score_thr: float) -> list[tuple[list[float], int, float]]:
    """Box, label and score of what is to be drawn, the best last, by plain Python."""
    every = zip(found.bboxes.tolist(), found.labels.tolist(), found.scores.tolist())
    return sorted((own for own in every if own[2] >= score_thr), key=lambda own: own[2])


def drawn(axis: Any) -> list[tuple[list[float], tuple]]:
    """Boxes and colours, as they were drawn."""
    return [([*own.get_xy(), own.get_x() + own.get_width(), own.get_y() + own.get_height()], own.get_edgecolor()[:3])
            for own in axis.patches if isinstance(own, Rectangle)]


def assert_drawn(axis: Any, expected: list[tuple[list[float], int, float]]) -> None:
    found = drawn(axis)  # the last one lies on top
    assert len(found) == len(expected)
    for (box, colour), (other, label, _) in zip(found, expected):
        assert box == pytest.approx(other, abs=1e-3)
        assert colour == to_rgb(COLOURS[label])
    assert [text.get_text() for text in axis.texts] == [f'{score:.2f}' for _, _, score in expected]


def assert_nothing_overlaps(figure: Figure) -> None:
    """Titles, images and legend lie beside each other, inside of the picture."""
    renderer = FigureCanvasAgg(figure).get_renderer()
    boxes = [axis.patch.get_window_extent(renderer) for axis in figure.axes]
    boxes += [text.get_window_extent(renderer) for axis in figure.axes
              for text in (axis.title, axis._left_title) if text.get_text()]  # type: ignore[attr-defined]
    boxes += [legend.get_window_extent(renderer) for legend in figure.legends]
    for index, box in enumerate(boxes):
        assert box.x0 >= 0
        assert box.y0 >= 0
        assert box.x1 <= figure.bbox.x1
        assert box.y1 <= figure.bbox.y1
        for other in boxes[:index]:
            assert min(box.x1, other.x1) - max(box.x0, other.x0) < 1 or \
                min(box.y1, other.y1) - max(box.y0, other.y0) < 1


@pytest.mark.parametrize('score_thr', [0.1, 0.6, 1.])
def test_subnets(tmp_path: Path, score_thr: float) -> None:
    columns = {title: predictions(number) for number, title in enumerate(TITLES)}
    before = dict(matplotlib.rcParams), plt.get_fignums()
    figure = draw_subnets(columns, [noise(size) for size in SIZES], CLASSES, tmp_path / 'a.png', score_thr)
    assert (dict(matplotlib.rcParams), plt.get_fignums()) == before
    assert len(figure.axes) == 6
    for place, axis in enumerate(figure.axes):  # row by row
        row, column = divmod(place, 2)
        assert axis.get_title(loc='left') == ('' if row else TITLES[column])
        assert np.array_equal(axis.images[0].get_array(), noise(SIZES[row]))
        assert_drawn(axis, good_ones(columns[TITLES[column]][row].pred_instances, score_thr))
    [legend] = figure.legends
    assert [text.get_text() for text in legend.get_texts()] == CLASSES
    assert [patch.get_facecolor()[:3] for patch in legend.get_patches()] == [to_rgb(own) for own in COLOURS[:3]]
    assert_nothing_overlaps(figure)
    assert plt.imread(tmp_path / 'a.png')[..., :3].std() > 0.05


def test_boxes_on_top_of_each_other_are_all_drawn(tmp_path: Path) -> None:
    """Two classes at one place, and two objects of a class side by side in a crowd: the detector kept them all."""
    boxes = torch.tensor([[10., 10., 50., 50.], [10., 10., 50., 50.], [12., 10., 52., 50.]])
    sample = DetDataSample(pred_instances=InstanceData(bboxes=boxes, labels=torch.tensor([0, 1, 1]),
                                                       scores=torch.tensor([0.9, 0.5, 0.7])))
    figure = draw_subnets({'max': [sample]}, [noise((60, 80))], CLASSES, tmp_path / 'a.png')
    assert [text.get_text() for text in figure.axes[0].texts] == ['0.50', '0.70', '0.90']
    assert_drawn(figure.axes[0], good_ones(sample.pred_instances, 0.3))


@pytest.mark.parametrize(('count', 'shown', 'named'), [(3, 80, False), (80, 80, True), (80, 8, False)])
def test_many_classes(tmp_path: Path, count: int, shown: int, named: bool) -> None:
    """The legend has those that were found; if the colours are too few for them, their names are on the boxes."""
    classes = [f'class number {number}' for number in range(80)]
    sample = DetDataSample(pred_instances=instances(1, 40, count))
    sample.pred_instances.labels %= shown
    figure = draw_subnets({'max': [sample], 'min': [sample]}, [noise((60, 80))], classes, tmp_path / 'a.png', 0.2)
    expected = good_ones(sample.pred_instances, 0.2)
    labels = sorted({label for _, label, _ in expected})
    assert (len(labels) > len(COLOURS)) is named
    assert [text.get_text() for text in figure.legends[0].get_texts()] == [classes[label] for label in labels]
    assert sorted(text.get_text() for text in figure.axes[0].texts) == sorted(
        f'{classes[label]} {score:.2f}' if named else f'{score:.2f}' for _, label, score in expected)
    for text in figure.axes[0].texts:
        back = text.get_bbox_patch().get_facecolor()[:3]  # type: ignore[union-attr]
        assert text.get_color() == ('white' if back in (to_rgb('#000000'), to_rgb('#0072B2')) else 'black')
    assert_nothing_overlaps(figure)
    empty = draw_subnets({'max': [sample]}, [noise((60, 80))], classes, tmp_path / 'a.png', 1.)
    assert not empty.legends


def test_a_picture_appears_when_it_is_complete(monkeypatch: Any, tmp_path: Path) -> None:
    (tmp_path / 'a.png').write_bytes(b'old')

    def broken(self: Figure, path: Path, **kwargs: Any) -> None:
        path.write_bytes(b'half')
        raise OSError('no space')

    monkeypatch.setattr(Figure, 'savefig', broken)
    with pytest.raises(OSError, match='no space'):
        draw_subnets({'max': predictions(0)}, [noise(size) for size in SIZES], CLASSES, tmp_path / 'a.png')
    assert [(path.name, path.read_bytes()) for path in tmp_path.iterdir()] == [('a.png', b'old')]


def run(monkeypatch: Any, tool: str, *arguments: Any) -> None:
    monkeypatch.setattr(sys, 'argv', [tool, *map(str, arguments)])
    runpy.run_path(str(ROOT / 'tools' / tool), run_name='__main__')


@pytest.fixture(scope='module')
def folder(tmp_path_factory: Any) -> Path:
    """A config with data to calibrate with, a checkpoint, and two images without annotations."""
    own = tmp_path_factory.mktemp('draw')
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, 'make_shapes.py', own / 'data', '--train', 6, '--val', 2, '--size', 64)
    data = str(own / 'data')
    (own / 'config.py').write_text(
        f'_base_ = {str(ROOT / "configs" / "shapes_supnet.py")!r}\n'
        f'train_dataloader = dict(dataset=dict(data_root={data!r}))\n'
        'test_dataloader = dict(dataset=dict(data_root="nowhere"))\n'
        'model = dict(test_cfg=dict(score_thr=0., nms_pre=50))\n')
    model = scramble(MODELS.build(Config.fromfile(own / 'config.py').model))
    torch.save(dict(state_dict=model.state_dict(), meta=dict(dataset_meta=dict(classes=('a', 'b', 'c')))),
               own / 'model.pth')
    for number, size in enumerate([(96, 128), (128, 100)]):
        mmcv.imwrite(noise(size, number), str(own / f'{number}.png'))
    return own


def arguments(folder: Path, out: Path) -> list[Any]:
    return [folder / 'config.py', folder / 'model.pth', '--images', folder / '0.png', folder / '1.png', '--out', out]


def measure(plain: Any, size: Any, batch_size: int, backend: str, device: str, threads: int) -> Any:
    """A stand-in for the measurement of latency."""
    assert (size, batch_size, backend, device, threads) == ((96, 128), 1, 'torch', 'cpu', 1)
    return SimpleNamespace(median=sum(parameter.numel() for parameter in plain.parameters()) / 1e3)


@pytest.mark.parametrize('calibrate', [0, 4])
def test_tool(monkeypatch: Any, capsys: Any, tmp_path: Path, folder: Path, calibrate: int) -> None:
    calls: list[Any] = []
    monkeypatch.setattr('mmbignas.analysis.draw_subnets', lambda *args: calls.append(args))
    monkeypatch.setattr('mmbignas.latency.measure_latency', measure)
    run(monkeypatch, 'draw_subnets.py', *arguments(folder, tmp_path / 'a.png'), '--subnet', 'max', 7, '--score-thr', .2,
        '--calib-images', calibrate, '--device', 'cpu')
    [(columns, images, classes, out, score_thr)] = calls
    assert (classes, out, score_thr) == (['a', 'b', 'c'], str(tmp_path / 'a.png'), .2)
    for image, size in zip(images, [(96, 128), (128, 100)], strict=True):
        assert np.array_equal(image[..., ::-1], noise(size, int(size[0] == 128)))
    assert 'MMACs at 96x128, ' in capsys.readouterr().out
    cfg = Config.fromfile(folder / 'config.py')
    model = MODELS.build(cfg.model).eval()
    load_weights(model, read_checkpoint(folder / 'model.pth'))
    space = Supernet(model).space
    for (title, samples), (name, subnet) in zip(columns.items(), [('max', space.max()), ('subnet7', space[7])],
                                                strict=True):
        load_weights(model, read_checkpoint(folder / 'model.pth'))
        Supernet(model).apply(subnet)
        if calibrate:
            calibrate_bn(model, CalibrationImages(calibrate, cfg.train_dataloader).load())
        plain = MODELS.build(subnet_config(cfg.model, model, subnet)).eval()
        plain.load_state_dict(subnet_state_dict(model, plain))
        for number, (sample, image) in enumerate(zip(samples, images, strict=True)):
            # The pipeline scales into 128x128, which both images fill already.
            tensor = torch.from_numpy(image[..., ::-1].transpose(2, 0, 1).copy())
            meta = DetDataSample(metainfo=dict(img_shape=tensor.shape[1:], ori_shape=tensor.shape[1:],
                                               scale_factor=(1., 1.), img_id=number))
            with torch.no_grad():
                [expected] = plain.test_step(dict(inputs=[tensor], data_samples=[meta]))
            for key in ('scores', 'bboxes', 'labels'):
                torch.testing.assert_close(sample.pred_instances[key], expected.pred_instances[key], rtol=1e-4,
                                           atol=1e-4)
            assert len(sample.pred_instances) > 5
        analyzer = FlopAnalyzer(plain, torch.zeros(1, 3, 96, 128))
        analyzer.unsupported_ops_warnings(False).uncalled_modules_warnings(False)
        macs = sum(analyzer.by_operator()[kind] for kind in ('conv', 'linear'))
        params = sum(parameter.numel() for parameter in plain.parameters())
        assert title.splitlines() == [name, f'{macs / 1e6:.2f} MMACs at 96x128, {params / 1e3:.2f} K parameters',
                                      f'{params / 1e3:.2f} ms, torch on cpu']


def test_tool_without_latency(monkeypatch: Any, capsys: Any, tmp_path: Path, folder: Path) -> None:
    monkeypatch.setattr('mmbignas.latency.measure_latency', lambda *args: pytest.fail('not asked for'))
    run(monkeypatch, 'draw_subnets.py', *arguments(folder, tmp_path / 'a.png'), '--subnet', 'min', 'random',
        '--latency-backend', 'none')
    output = capsys.readouterr().out
    assert 'BN calibration: keeps 6 images' in output  # as the config's hook says
    assert output.splitlines()[-1] == f'in {tmp_path / "a.png"}: 2 images, 2 subnets'
    assert plt.imread(tmp_path / 'a.png').shape[1] > 700


@pytest.mark.parametrize(('options', 'message'), [
    (['--images', 'none.png'], '--images: none.png does not exist'),
    (['--images', 'CONFIG'], 'cannot be read as an image'),
    (['--images', 'CONFIG.png'], '--images: CONFIG.png cannot be read as an image'),  # an empty file
    (['--out', 'a.jpg'], "the file must be one that ends in .png, got 'a.jpg'"),
    (['--out', 'nowhere/a.png'], 'nowhere/a.png: its folder does not exist'),
    (['--out', 'CONFIG.png'], 'CONFIG.png: exists'),
    (['--score-thr', '2'], '--score-thr must be a number from 0 to 1, got 2.0'),
    (['--threads', '0'], 'threads must be an integer >= 1, got 0'),
    (['--device', 'gpu', '--latency-backend', 'none'], "device must be one of cpu, cuda with backend torch, got 'gpu'"),
    (['--calib-images', '-1'], '--calib-images must be an integer >= '),
    (['--subnet', 'max', 'huge'], "--subnet[1] must be max, min, middle, random, a number from 0 to "),
    (['--cfg-options', 'model.bbox_head.num_classes=5'], 'is of another architecture'),
])
def test_tool_errors_are_one_line(monkeypatch: Any, capsys: Any, tmp_path: Path, folder: Path, options: list,
                                  message: str) -> None:
    (folder / 'CONFIG.png').touch()
    monkeypatch.chdir(folder)
    options = [str(folder / 'config.py') if option == 'CONFIG' else option for option in options]
    with pytest.raises(SystemExit) as stop:
        run(monkeypatch, 'draw_subnets.py', *arguments(folder, tmp_path / 'a.png'), *options)
    assert stop.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert [line for line in lines if line.startswith('error: ')] == lines[-1:]
    assert message in lines[-1]
    assert not list(tmp_path.iterdir())
