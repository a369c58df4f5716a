"""Pictures of costs: what is in them, and that there is something in them."""
from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from matplotlib import pyplot as plt
from matplotlib.collections import PathCollection
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.text import Text

from mmbignas.analysis import CostSample, draw_macs, draw_macs_params
from mmbignas.analysis.figures import COLOURS
from mmbignas.cost import Cost

SIZES = [(768, 1344), (512, 896)]


def sample(count: int = 400, **arguments: Any) -> CostSample:
    """Costs between 10 and 30 GMACs, of a space between 8 and 40."""
    rng = random.Random(0)
    macs = [rng.randrange(10**10, 3 * 10**10) for _ in range(count)]
    ends = Cost(8 * 10**9, 8 * 10**9, 10**7, {}), Cost(4 * 10**10, 4 * 10**10, 5 * 10**7, {})
    params, image_sizes = [own // 1000 + 5 * 10**6 for own in macs], [SIZES[row % 2] for row in range(count)]
    return CostSample(macs, params, image_sizes, 59_049, 2 * count, *ends, **arguments)


def texts(figure: Figure) -> list[str]:
    return [text.get_text() for text in figure.findobj(Text) if text.get_text()]


def pixels(path: Path) -> np.ndarray:
    return plt.imread(path)[..., :3]


def share(image: np.ndarray, colour: str) -> float:
    """Share of the pixels that have this colour."""
    return float((np.abs(image - to_rgb(colour)).max(-1) < 0.02).mean())


@pytest.mark.parametrize('draw', [draw_macs, draw_macs_params])
@pytest.mark.parametrize('count', [1, 2, 400, 20_000])
def test_files(tmp_path: Path, draw: Any, count: int) -> None:
    before = dict(matplotlib.rcParams), plt.get_fignums()
    figure = draw(sample(count, marks=dict(baseline=2 * 10**10)), tmp_path / 'picture.partial')
    image = pixels(tmp_path / 'picture.partial')
    assert image.shape[1] == 1120
    assert 650 < image.shape[0] < 900
    assert 0.5 < share(image, 'white') < 0.99
    assert image.std() > 0.05
    assert share(image, COLOURS[5]) > 0.0005  # the line of the baseline
    assert (dict(matplotlib.rcParams), plt.get_fignums()) == before
    assert min(text.get_fontsize() for text in figure.findobj(Text) if text.get_text()) >= 10


def test_macs(tmp_path: Path) -> None:
    own = sample(marks=dict(baseline=2 * 10**10, large=28 * 10**9), flops_range=(10**10, 3 * 10**10))
    figure = draw_macs(own, tmp_path / 'a.png')
    (axis,) = figure.axes
    assert axis.get_title() == '400 subnets of a space of 59,049'
    assert axis.get_xlabel() == 'GMACs (multiply-adds of convolutions and linear layers)'
    assert axis.get_ylabel() == 'subnets'
    bars = [bar for bar in axis.patches if bar.get_facecolor()[:3] == to_rgb(COLOURS[1])]
    assert sum(bar.get_height() for bar in bars) == 400
    for bar in bars:
        left, right = bar.get_x(), bar.get_x() + bar.get_width()
        assert bar.get_height() == pytest.approx(sum(left <= macs / 1e9 <= right for macs in own.macs), abs=1)
    near = {mark: [sum(abs(macs - mark) <= mark * percent / 100 for macs in own.macs) for percent in (1, 5)]
            for mark in (2 * 10**10, 28 * 10**9)}
    assert near[2 * 10**10][0] > 0
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels == [
        'range: 10.00 GMACs to 30.00 GMACs',
        'baseline, 20.00 GMACs: {} within 1 %, {} within 5 %'.format(*near[2 * 10**10]),
        'large, 28.00 GMACs: {} within 1 %, {} within 5 %'.format(*near[28 * 10**9]),
        'smallest of the space: 8.00 GMACs', 'largest of the space: 40.00 GMACs']
    lines = {line.get_label().split(',')[0]: line.get_xdata()[0] for line in axis.lines}
    assert (lines['baseline'], lines['large']) == (20, 28)
    assert (lines['smallest of the space: 8.00 GMACs'], lines['largest of the space: 40.00 GMACs']) == (8, 40)
    assert axis.get_xlim()[0] < 8
    assert axis.get_xlim()[1] > 40


def test_macs_params(tmp_path: Path) -> None:
    own = sample(marks=dict(baseline=2 * 10**10))
    figure = draw_macs_params(own, tmp_path / 'a.png')
    (axis,) = figure.axes
    assert (axis.get_xlabel(), axis.get_ylabel()) == ('GMACs (multiply-adds of convolutions and linear layers)',
                                                      'parameters (M)')
    points = next(own for own in axis.collections if isinstance(own, PathCollection))
    np.testing.assert_allclose(points.get_offsets(), np.stack([own.macs, own.params], 1) / [1e9, 1e6])
    colours = [tuple(row) for row in points.get_facecolors()[:, :3]]
    by_size = {size: {colour for colour, other in zip(colours, own.image_sizes) if other == size} for size in SIZES}
    assert all(len(found) == 1 for found in by_size.values())
    assert by_size[SIZES[0]] != by_size[SIZES[1]]
    labels = [text.get_text() for text in figure.legends[0].get_texts()]
    assert labels[:2] == ['images of 512 x 896 pixels: 200 subnets', 'images of 768 x 1344 pixels: 200 subnets']
    assert labels[2].startswith('baseline, 20.00 GMACs: ')
    assert labels[3] == 'smallest and largest of the space'
    stars = next(line for line in axis.lines if line.get_marker() == '*')
    assert stars.get_xydata().tolist() == [[8, 10], [40, 50]]


@pytest.mark.parametrize(('limits', 'label'), [
    ((None, None), None), ((10**10, None), 'range: 10.00 GMACs to 40.00 GMACs'),
    ((None, 10**10), 'range: 8.00 GMACs to 10.00 GMACs'), ((1, 10**15), 'range: 1 MACs to 1000.00 TMACs')])
def test_open_ranges(tmp_path: Path, limits: tuple, label: str | None) -> None:
    figure = draw_macs(sample(flops_range=limits), tmp_path / 'a.png')
    assert [text for text in texts(figure) if text.startswith('range')] == ([label] if label else [])
    assert 0 < figure.axes[0].get_xlim()[0] < 8 < 40 < figure.axes[0].get_xlim()[1] < 50


def test_units_and_huge_spaces(tmp_path: Path) -> None:
    ends = Cost(900, 900, 80, {}), Cost(4_000, 4_000, 200, {})
    tiny = CostSample([1000, 2000], [100, 200], [(8, 8)] * 2, 10**400, 2, *ends)
    figure = draw_macs_params(tiny, tmp_path / 'a.png')
    assert figure.axes[0].get_title() == '2 subnets of a space of 1.00e+400, images of 8 x 8 pixels'
    assert figure.axes[0].get_xlabel().startswith('KMACs')
    assert figure.axes[0].get_ylabel() == 'parameters'
