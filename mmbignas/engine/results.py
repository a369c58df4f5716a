"""What came out of the evaluation of many subnets, as files for people and programs."""
from __future__ import annotations

import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmbignas.analysis.accuracy_page import write_page
from mmbignas.analysis.accuracy_plots import draw_accuracy
from mmbignas.analysis.accuracy_sample import AccuracySample, EvaluatedSubnet
from mmbignas.dependencies import installed
from mmbignas.engine.prediction import report
from mmbignas.replacing import replacing


def write_results(sample: AccuracySample, folder: Path, command: Callable[[EvaluatedSubnet], str],
                  log: Callable[[str], Any], predicted: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Write ``results.json``, ``subnets.csv``, ``accuracy_<cost>.png`` and ``subnets.html``, each when it is complete.

    Args:
        sample: the evaluated subnets.
        folder: where the files go; it exists.
        command: gives the command that exports a subnet, for the page.
        log: is given the report for people.
        predicted: what is predicted of other subnets, for ``results.json``.

    Returns:
        dict: how many subnets there are, the metrics of the best one, and those of the best one near each mark.
    """
    names = ['results.json', 'subnets.csv', *(f'accuracy_{cost}.png' for cost in sample.costs())]
    content = dict(sample.summary(), predicted=predicted)
    with replacing(folder / names[0]) as aside:
        aside.write_text(json.dumps(content, indent=2, allow_nan=False) + '\n', encoding='utf-8')
    sample.write_csv(folder / names[1])
    for cost, name in zip(sample.costs(), names[2:]):
        draw_accuracy(sample, folder / name, cost)
    if installed('plotly'):
        names.append('subnets.html')
        write_page(sample, folder / names[-1], command)
    else:
        log('no subnets.html, a page to choose subnets from, without plotly: pip install "mmbignas[search]"')
    reports = [sample.report(), *([] if predicted is None else [report(predicted)])]
    log('\n'.join([*reports, f'in {folder}: {", ".join(names)}']))
    metrics: dict[str, float] = dict(subnets=len(sample.subnets))
    best = sample.best()
    if best is not None:
        metrics.update({f'best_{name}': best.metric(name) for name in _names(sample)}, best_macs=best.macs)
    for mark, macs in sample.marks.items():
        for own in sample.best_near(macs)[:1]:
            metrics.update({f'best_near_{mark}_{name}': own.metric(name) for name in _names(sample)})
    return metrics


def _names(sample: AccuracySample) -> list[str]:
    return [name for name in (sample.metric1, sample.metric2) if name is not None]


def export_command(config: Path, checkpoint: str | None, image_sizes: int) -> Callable[[EvaluatedSubnet], str]:
    """What has to be typed to export a subnet.

    Args:
        config: file of the run's config, with all that was changed on the command line: the numbers of subnets depend
            on it.
        checkpoint: of the supernet, if it has one.
        image_sizes: how many image sizes the space has; with several, the config has to name them.

    Returns:
        function: evaluated subnet -> command.
    """
    tool = 'python tools/export_subnet.py' if Path('tools/export_subnet.py').is_file() else \
        'mim run mmbignas export_subnet'

    def command(subnet: EvaluatedSubnet) -> str:
        files = ' '.join(shlex.quote(str(path)) for path in (config, checkpoint or 'CHECKPOINT'))
        size = ' --image-size {} {}'.format(*subnet.image_size) if image_sizes == 1 else ''
        return f'{tool} {files} --subnet {subnet.number}{size} --out work_dirs/subnet{subnet.number}'

    return command
