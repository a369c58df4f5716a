"""A page to choose a subnet from: one file, which needs no network."""
from __future__ import annotations

import html
import json
import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from mmbignas.analysis.accuracy_plots import check_sample
from mmbignas.analysis.accuracy_sample import COST_NAMES, AccuracySample, EvaluatedSubnet, format_size
from mmbignas.analysis.figures import BLACK, BLUE, MARK_COLOURS, VERMILION, size_colours
from mmbignas.dependencies import require
from mmbignas.space import IMAGE_SIZE
from mmbignas.utils.files import replacing
from mmbignas.utils.metric_values import format_metric
from mmbignas.utils.units import format_macs, format_params

TITLES = dict(macs='MACs', params='parameters', latency_ms='latency in milliseconds (predicted)')
BUTTONS = ('toImage', 'zoom2d', 'pan2d', 'zoomIn2d', 'zoomOut2d', 'resetScale2d')  # above the plot
SCRIPT = Path(__file__).with_name('accuracy_page.js')  # what happens on a click; it reads the subnets below
PAGE = """<!DOCTYPE html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<link rel="icon" href="data:,">
<title>{title}</title>
<style>
body {{ font-family: sans-serif; margin: 1em auto; max-width: 1200px; padding: 0 1em; color: #222; }}
h1 {{ font-size: 1.2em; }}
#plot {{ height: 65vh; min-height: 400px; }}
#panel {{ border-top: 1px solid #ccc; padding-top: .6em; }}
pre {{ background: #f4f4f4; padding: .6em; overflow-x: auto; white-space: pre-wrap; overflow-wrap: anywhere; }}
button, select {{ font-size: 1em; padding: .2em .6em; }}
</style>
</head>
<body>
<h1>{title}</h1>
<div id="plot">{plot}</div>
<div id="panel">
<p><label>Subnet
<select id="choose"><option value="">click a point, or choose here</option>{options}</select></label></p>
<div id="chosen" hidden>
<p id="facts"></p>
<pre id="settings"></pre>
<p>To export it: <button id="copy" type="button">copy</button> <span id="copied" role="status"></span></p>
<pre id="command"></pre>
</div>
</div>
<script type="application/json" id="subnets">{subnets}</script>
<script>{script}</script>
</body>
</html>
"""


def write_page(sample: AccuracySample, path: str | Path, command: Callable[[EvaluatedSubnet], str],
               title: str | None = None) -> None:
    """Write a page that shows a subnet's settings under the mouse and, on a click, the command that exports it.

    The buttons choose cost and metric. Fronts, marks and the ten best near each mark are drawn.

    Args:
        sample: the subnets, at least one.
        path: HTML file to write, about 5 MB, mostly plotly's script; it appears when it is complete.
        command: gives the command for a subnet.
        title: of the page; ``None`` for the number of subnets.

    Raises:
        ConfigError: for no subnets.
        DependencyError: without plotly.
    """
    check_sample(sample)
    go = require('plotly.graph_objects', 'the page of subnets', 'mmbignas[search]')
    views = [(cost, metric) for metric in dict.fromkeys([sample.metric1, sample.metric2]) if metric or not
             sample.metric1 for cost in sample.costs()]
    figure = go.Figure(_traces(go, sample, *views[0]))
    figure.update_layout(
        template='simple_white', hovermode='closest', clickmode='event', margin=dict(l=60, r=20, t=60, b=60),
        legend=dict(orientation='h', yanchor='top', y=-0.15), hoverlabel=dict(align='left'),
        **_layout(sample, *views[0]))
    figure.update_layout(updatemenus=[dict(
        type='dropdown', x=0, xanchor='left', y=1.02, yanchor='bottom', showactive=True,
        buttons=[dict(label=_label(f'{metric or "no metrics"} against {COST_NAMES[cost]}'), method='update',
                      args=_changes(go, sample, cost, metric)) for cost, metric in views])])
    plot = figure.to_html(full_html=False, include_plotlyjs=True, include_mathjax=False, div_id='figure',
                          default_height='100%',
                          config=dict(responsive=True, displaylogo=False, modeBarButtons=[list(BUTTONS)]))
    title = title or f'{len(sample.subnets):,} subnets of a space of {sample.space_size:,}'
    # One pass fills the template in, so that braces in what it is filled with mean nothing.
    text = PAGE.format(title=html.escape(title), plot=plot, options=_options(sample), subnets=_json(
        [_facts(own, sample, command(own)) for own in sample.subnets]), script=SCRIPT.read_text(encoding='utf-8'))
    with replacing(path) as aside:
        aside.write_text(text, encoding='utf-8')


def _traces(go: Any, sample: AccuracySample, cost: str, metric: str | None) -> list[Any]:
    """The subnets of each image size, the front, the ten best near each mark, and last the one that was clicked.

    The mouse finds only those of the first kind, which have the texts; the others lie on top of them.
    """
    sizes, colours = sample.image_sizes(), size_colours(sample.image_sizes())
    places = {id(own): place for place, own in enumerate(sample.subnets)}

    def points(subnets: Sequence[EvaluatedSubnet], **arguments: Any) -> Any:
        return go.Scatter(x=[getattr(own, cost) for own in subnets], y=[_height(own.metric(metric)) for own in subnets],
                          **arguments)

    traces = []
    for size in sizes:
        own = sample.of_size(size).subnets
        name = f'{len(own):,} subnets'
        traces.append(points(
            own, mode='markers', name=f'{format_size(size)} pixels: {name}' if len(sizes) > 1 else name,
            customdata=[places[id(one)] for one in own], text=[_hover(one, sample) for one in own],
            hovertemplate='%{text}<extra></extra>',
            marker=dict(size=7, opacity=.6, color=colours[size] if len(sizes) > 1 else BLUE)))
    front = sample.front(cost, metric)
    traces.append(points(front, mode='lines+markers', name=f'Pareto front: {len(front)} subnets', hoverinfo='skip',
                         line=dict(shape='hv', color=BLACK, width=1.5), marker=dict(size=6, color=BLACK)))
    for (name, macs), colour in zip(sample.marks.items(), MARK_COLOURS):
        near = sample.best_near(macs)
        label = _label(f'{name}, {format_macs(macs)}: best {len(near)} within 1 %')
        traces.append(points(near, mode='markers', name=label, hoverinfo='skip',
                             marker=dict(size=14, symbol='circle-open', color=colour, line=dict(width=2))))
    traces.append(go.Scatter(x=[], y=[], mode='markers', name='chosen', hoverinfo='skip', showlegend=False,
                             marker=dict(size=18, symbol='circle-open', color=VERMILION, line=dict(width=3))))
    return traces


def _height(metric: float) -> float | None:
    """Where a point is; ``None``, which is not drawn, for a metric that is no number."""
    return None if math.isnan(metric) else metric


def _layout(sample: AccuracySample, cost: str, metric: str | None) -> dict[str, Any]:
    """Axes, and the lines of the marks where the cost is MACs."""
    shapes = [dict(type='line', x0=macs, x1=macs, y0=0, y1=1, yref='paper', opacity=1,
                   line=dict(color=colour, width=1.5))
              for macs, colour in zip(sample.marks.values(), MARK_COLOURS)] if cost == 'macs' else []
    return dict(xaxis=dict(title=dict(text=TITLES[cost]), autorange=True, exponentformat='SI'),
                yaxis=dict(title=dict(text=_label(metric or 'no metrics')), autorange=True), shapes=shapes)


def _changes(go: Any, sample: AccuracySample, cost: str, metric: str | None) -> list[dict[str, Any]]:
    """What a button changes: where the points are, and the layout."""
    traces = _traces(go, sample, cost, metric)
    return [{name: [getattr(trace, name) for trace in traces] for name in ('x', 'y', 'name')},
            _layout(sample, cost, metric)]


def _costs(subnet: EvaluatedSubnet) -> str:
    latency = '' if subnet.latency_ms is None else f', {subnet.latency_ms:.2f} ms'
    return (f'{format_macs(subnet.macs)}, {format_params(subnet.params)} parameters{latency}, '
            f'{format_size(subnet.image_size)} pixels')


def _metrics(subnet: EvaluatedSubnet, sample: AccuracySample) -> str:
    names = filter(None, (sample.metric1, sample.metric2))
    return ', '.join(f'{name} {format_metric(subnet.metric(name), 4)}' for name in names)


def _settings(subnet: EvaluatedSubnet) -> list[str]:
    """One line per module."""
    return [f'{path}: ' + ', '.join(f'{name} {" ".join(map(str, values))}' for name, values in elements.items())
            for path, elements in subnet.settings.items() if path != IMAGE_SIZE]


def _hover(subnet: EvaluatedSubnet, sample: AccuracySample) -> str:
    lines = [f'subnet {subnet.number}', _metrics(subnet, sample), _costs(subnet), *_settings(subnet)]
    return '<br>'.join(_label(line) for line in lines if line)


def _facts(subnet: EvaluatedSubnet, sample: AccuracySample, command: str) -> dict[str, str]:
    """What the panel shows for a subnet."""
    facts = ', '.join(filter(None, [f'subnet {subnet.number}', _metrics(subnet, sample), _costs(subnet)]))
    return dict(facts=facts, settings='\n'.join(_settings(subnet)), command=command)


def _options(sample: AccuracySample) -> str:
    """The subnets that people are likely to look for, to be chosen without a mouse."""
    places = {id(own): place for place, own in enumerate(sample.subnets)}
    groups = {'Pareto front': sample.front('macs'),
              **{f'best near {name}': sample.best_near(macs) for name, macs in sample.marks.items()}}
    result = []
    for group, subnets in groups.items():
        options = ''
        for own in subnets:
            text = ', '.join(filter(None, [f'subnet {own.number}', _metrics(own, sample), format_macs(own.macs)]))
            options += f'<option value="{places[id(own)]}">{html.escape(text)}</option>'
        result.append(f'<optgroup label="{html.escape(group)}">{options}</optgroup>')
    return ''.join(result)


def _label(text: str) -> str:
    """A text as plotly draws it: it takes tags for tags, and knows no names for quotation marks."""
    return html.escape(text, quote=False)


def _json(content: Any) -> str:
    """JSON inside a script, escaped so that it cannot end the script."""
    return json.dumps(content).replace('<', '\\u003c').replace('\u2028', '\\u2028').replace('\u2029', '\\u2029')
