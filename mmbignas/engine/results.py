"""What came out of the evaluation of many subnets, as files for people and programs."""
from __future__ import annotations

import copy
import json
import shlex
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from mmengine.config import Config

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


def write_config(cfg: Config, key: str, path: Path) -> None:
    """Write a run's config in such a way that subnets are exported as they were evaluated.

    Args:
        cfg: config of the run.
        key: of the evaluation, ``test_cfg`` or ``val_cfg``. Tools ask ``test_cfg`` first for image sizes, and with
            others a number is that of another subnet; so, where there is one, it becomes this.
        path: the file.
    """
    if cfg.get('test_cfg') and cfg.get(key):
        cfg = copy.deepcopy(cfg)
        cfg.test_cfg = cfg[key]
    with replacing(path) as aside:
        aside.write_text(cfg.pretty_text, encoding='utf-8')


def export_command(config: Path, checkpoint: str | None) -> Callable[[EvaluatedSubnet], str]:
    """What has to be typed to export a subnet.

    Args:
        config: file of :func:`write_config`, with all that was changed on the command line: the numbers of subnets
            depend on it.
        checkpoint: of the supernet, if it has one.

    Returns:
        function: evaluated subnet -> command.
    """
    tool = 'python tools/export_subnet.py' if Path('tools/export_subnet.py').is_file() else \
        'mim run mmbignas export_subnet'
    files = ' '.join(shlex.quote(str(path)) for path in (config, checkpoint or 'CHECKPOINT'))
    return lambda subnet: f'{tool} {files} --subnet {subnet.number} --out exported/subnet{subnet.number}'
