"""The picture of losses by width and depth: what is in it."""
from __future__ import annotations

from pathlib import Path

import matplotlib
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from mmbignas.analysis import draw_subnet_losses

CURVES = {
    'backbone.depth.3/10': [[50, 2.], [100, 1.]],
    'backbone.depth.3/9': [[50, 2.1], [100, 1.1], [150, 1.]],
    'image_size/224x224': [[50, 3.]],
    'image_size/96x128': [[50, 4.]],
    **{f'neck.out_channel/{8 * width}': [[50, width], [100, width / 2]] for width in range(1, 11)},
    'head.expand_ratio/0.5': [[50, 1.]],
}


def panels(tmp_path: Path) -> dict[str, Axes]:
    figure = draw_subnet_losses(CURVES, tmp_path / 'losses.png')
    return {axis.get_title(): axis for axis in figure.axes}


def test_each_curve_is_drawn(tmp_path: Path) -> None:
    found = panels(tmp_path)
    assert list(found) == ['backbone.depth.3', 'image_size', 'neck.out_channel', 'head.expand_ratio']
    lines = found['backbone.depth.3'].get_lines()
    assert [line.get_label() for line in lines] == ['9', '10']  # as numbers, not as strings
    assert [line.get_xydata().tolist() for line in lines] == [CURVES['backbone.depth.3/9'],  # type: ignore[union-attr]
                                                              CURVES['backbone.depth.3/10']]
    assert [line.get_label() for line in found['image_size'].get_lines()] == ['96x128', '224x224']
    assert len(found['neck.out_channel'].get_lines()) == 10
    legend = found['neck.out_channel'].get_legend()
    assert legend is not None
    assert [text.get_text() for text in legend.get_texts()] == ['8', '80']


def test_file_and_nothing_else(tmp_path: Path) -> None:
    before = dict(matplotlib.rcParams), plt.get_fignums()
    panels(tmp_path)
    assert [file.name for file in tmp_path.iterdir()] == ['losses.png']
    assert (dict(matplotlib.rcParams), plt.get_fignums()) == before
    assert (plt.imread(tmp_path / 'losses.png')[..., :3].min(-1) < .6).any()
