"""Pictures of what evaluated subnets reach: the right points in the right places."""
import pytest
from PIL import Image

from mmbignas.analysis import AccuracySample, EvaluatedSubnet, draw_accuracy
from mmbignas.errors import ConfigError
from tests.analysis.evaluated import METRIC1, SIZES, sample


@pytest.mark.parametrize('cost', ['macs', 'params', 'latency_ms'])
@pytest.mark.parametrize('sizes', [1, 3])
def test_points(tmp_path, cost, sizes):
    own = sample(150, SIZES[:sizes], latency=True, marks=dict(baseline=10**9))
    figure = draw_accuracy(own, tmp_path / 'a.png', cost)
    [axis] = figure.axes
    points = axis.collections[0].get_offsets()
    scale = 1 if cost == 'latency_ms' else max(getattr(one, cost) for one in own.subnets) / max(points[:, 0])
    for point, one in zip(points, own.subnets, strict=True):
        assert list(point) == pytest.approx([getattr(one, cost) / scale, one.metric(METRIC1)])
    params = 10**6 if 'M' in axis.get_xlabel() else 10**3
    assert scale == pytest.approx(dict(macs=10**9, params=params, latency_ms=1)[cost])
    front = own.front(cost)
    drawn = [line for line in axis.lines if 'Pareto' in str(line.get_label())]
    assert len(drawn) == 1 and list(drawn[0].get_ydata())[:-1] == [one.metric(METRIC1) for one in front]
    rings = next(line for line in axis.lines if 'baseline' in str(line.get_label()))
    assert len(rings.get_xdata()) == len(own.best_near(10**9)) > 0
    with Image.open(tmp_path / 'a.png') as image:
        assert image.width == 1120


def test_without_metrics_and_subnets(tmp_path):
    own = AccuracySample([EvaluatedSubnet(3, {}, (8, 8), 10, 5)], None, None, {}, (5, None), 4)
    draw_accuracy(own, tmp_path / 'a.png')
    with pytest.raises(ConfigError, match="cost must be one of macs, params, got 'latency_ms'"):
        draw_accuracy(own, tmp_path / 'b.png', 'latency_ms')
    with pytest.raises(ConfigError, match=r'subnets must be a non-empty list, got \[\]'):
        draw_accuracy(AccuracySample([], None, None, {}, (None, None), 4), tmp_path / 'b.png')
    assert not (tmp_path / 'b.png').exists()
