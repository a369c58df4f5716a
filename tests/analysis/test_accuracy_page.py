"""The page to choose a subnet from: complete, harmless, and, where there is a browser, alive."""
import html
import json
import re
import shutil
import subprocess
import sys
from dataclasses import replace

import pytest

from mmbignas.analysis import AccuracySample, EvaluatedSubnet
from mmbignas.analysis.accuracy_page import write_page
from mmbignas.errors import ConfigError, DependencyError
from tests.analysis.evaluated import METRIC1, METRIC2, SIZES, sample

CHROMIUM = shutil.which('chromium') or shutil.which('chromium-browser') or shutil.which('google-chrome')
# Clicks on the sixth subnet, then shows the second view.
CLICK = """<script>
window.addEventListener('error', event => { document.title = 'ERROR ' + event.message; });
setTimeout(() => {
  const figure = document.getElementById('figure');
  figure.emit('plotly_click', {points: [{customdata: 5}]});
  const button = figure.layout.updatemenus[0].buttons[1];
  Plotly.update(figure, button.args[0], button.args[1]).then(() => {
    figure.emit('plotly_buttonclicked', {});
    setTimeout(() => {
      const last = figure.data[figure.data.length - 1];
      document.body.setAttribute('data-found', JSON.stringify([last.x, last.y, figure.data[0].x.length]));
    }, 300);
  });
}, 500);
</script></body>"""


# Names as nobody gives them, but a file may have.
NASTY = '</script><img src=x onerror="document.title=1"> & \'{plot_id}\' {title} {0} @SUBNETS@ %{x} $& \\'
METRICS = {METRIC1: f'coco/{NASTY}', METRIC2: METRIC2}


def command(subnet):
    return f'export {NASTY} "{subnet.number}" --out \'x\''


def subnets_of(text):
    return json.loads(re.search(r'<script type="application/json" id="subnets">(.*?)</script>', text, re.S)[1])


@pytest.fixture(scope='module')
def page(tmp_path_factory):
    own = sample(60, SIZES[:2], latency=True, marks={NASTY: 2 * 10**9})
    subnets = [replace(one, settings={NASTY if path == 'backbone' else path: value for path, value in
                                      one.settings.items()},
                       metrics={METRICS.get(name, name): value for name, value in one.metrics.items()})
               for one in own.subnets]
    own = replace(own, subnets=subnets, metric1=METRICS[METRIC1])
    path = tmp_path_factory.mktemp('page') / 'subnets.html'
    write_page(own, path, command, NASTY)
    return own, path


def labels_of(text):
    """The labels of plotly's buttons and traces, as people see them."""
    found = [json.loads(f'"{own}"') for own in re.findall(r'"(?:label|name)":"((?:[^"\\]|\\.)*)"', text)]
    assert not any(re.search('[<>]', label) for label in found)  # plotly would take it for a tag
    return [html.unescape(label) for label in found]


def test_what_is_in_it(page):
    own, path = page
    text = path.read_text()
    for one, facts in zip(own.subnets, subnets_of(text), strict=True):
        assert facts['command'] == command(one)
        assert f'subnet {one.number}, {own.metric1} {one.metric(own.metric1):.4f}' in facts['facts']
        assert f'{NASTY}: ' in facts['settings']
        assert 'out_channel ' + ' '.join(map(str, one.settings[NASTY]['out_channel'])) in facts['settings']
    labels = labels_of(text)
    assert [label for label in labels if ' against ' in label] == [
        f'{metric} against {cost}' for metric in (own.metric1, METRIC2) for cost in ('MACs', 'parameters', 'latency')]
    assert f'{NASTY}, 2.00 GMACs: best {len(own.best_near(2 * 10**9))} within 1 %' in labels
    for one in [*own.front('macs'), *own.best_near(2 * 10**9)]:
        assert f'>subnet {one.number}, ' in text


def test_nothing_breaks_out_and_nothing_is_loaded(page):
    text = page[1].read_text()
    assert text.count(f'<title>{html.escape(NASTY)}</title>') == text.count(f'<h1>{html.escape(NASTY)}</h1>') == 1
    assert '<img' not in text.replace('<image', '')  # of plotly's script
    # Plotly's script names addresses, which it does not use here.
    own = re.sub(r'<script[^>]*>.*?</script>', '', text, flags=re.S)
    assert 'http' not in own and not re.search(r'<script[^>]*\bsrc=|<link[^>]*href="(?!data:)', text)


@pytest.mark.slow
@pytest.mark.skipif(CHROMIUM is None, reason='there is no Chromium')
def test_a_click_in_a_browser(page, tmp_path):
    own, path = page
    clicked = tmp_path / 'clicked.html'
    clicked.write_text(CLICK.join(path.read_text().rsplit('</body>', 1)))
    done = subprocess.run([CHROMIUM, '--headless', '--no-sandbox', '--disable-gpu', '--virtual-time-budget=15000',
                           '--enable-logging=stderr', '--dump-dom', f'file://{clicked}'], capture_output=True,
                          text=True, timeout=200, check=True)
    assert 'CONSOLE' not in done.stderr
    text, one = done.stdout, own.subnets[5]
    assert html.unescape(re.search('<title>(.*?)</title>', text, re.S)[1]) == NASTY
    assert '<img' not in re.sub('<script.*?</script>', '', text, flags=re.S)
    drawn = [html.unescape(re.sub('<[^>]*>', '', own)) for own in re.findall('<text.*?</text>', text, re.S)]
    assert any(NASTY in own for own in drawn)
    assert html.unescape(re.search('<pre id="command">(.*?)</pre>', text, re.S)[1]) == command(one)
    assert f'subnet {one.number},' in re.search('<p id="facts">(.*?)</p>', text, re.S)[1]
    x, y, count = json.loads(html.unescape(re.search('data-found="(.*?)"', text)[1]))
    assert (x, y) == ([one.params], [one.metric(own.metric1)])
    assert count == len(own.of_size(own.image_sizes()[0]).subnets)


def test_without_metrics_subnets_and_plotly(tmp_path, monkeypatch):
    path = tmp_path / 'a.html'
    write_page(AccuracySample([EvaluatedSubnet(3, {}, (8, 8), 10, 5)], None, None, {}, (None, None), 4), path, command)
    assert len(subnets_of(path.read_text())) == 1
    with pytest.raises(ConfigError, match=r'subnets must be a non-empty list, got \[\]'):
        write_page(AccuracySample([], None, None, {}, (None, None), 4), tmp_path / 'b.html', command)
    monkeypatch.setitem(sys.modules, 'plotly.graph_objects', None)
    with pytest.raises(DependencyError, match=r'pip install "mmbignas\[search\]"'):
        write_page(sample(3), tmp_path / 'b.html', command)
    assert not (tmp_path / 'b.html').exists()
