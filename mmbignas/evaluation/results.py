"""The results of evaluating many subnets, as files for people and programs."""
from __future__ import annotations

import copy
import math
import time
from collections.abc import Callable, Iterable, Mapping
from datetime import timedelta
from pathlib import Path
from typing import Any

from mmengine.config import Config

from mmbignas.analysis.accuracy_page import write_page
from mmbignas.analysis.accuracy_plots import draw_accuracy
from mmbignas.analysis.accuracy_sample import AccuracySample, EvaluatedSubnet
from mmbignas.dependencies import installed
from mmbignas.space import SearchSpace, Subnet, json_number
from mmbignas.utils.commands import command
from mmbignas.utils.files import write_file, write_json
from mmbignas.utils.metric_values import format_metric
from mmbignas.utils.units import format_macs

REPORT_SECONDS = 10.
MIN_SUBNETS = 20
BEST = 10
NOISE = 1e-9  # less is no difference


def write_results(sample: AccuracySample, folder: Path, export: Callable[[EvaluatedSubnet], str],
                  log: Callable[[str], Any], predicted: Mapping[str, Any] | None = None) -> dict[str, float]:
    """Write ``results.json``, ``subnets.csv``, ``accuracy_<cost>.png`` and ``subnets.html``, each when it is complete.

    Args:
        sample: the evaluated subnets.
        folder: where the files go; it exists.
        export: gives the command that exports a subnet, for the page.
        log: is given the report for people.
        predicted: what is predicted for other subnets, for ``results.json``.

    Returns:
        dict: how many subnets there are, the metrics of the best one, and those of the best one near each mark.
    """
    names = ['results.json', 'subnets.csv', *(f'accuracy_{cost}.png' for cost in sample.costs())]
    write_json(folder / names[0], dict(sample.summary(), predicted=predicted))
    sample.write_csv(folder / names[1])
    for cost, name in zip(sample.costs(), names[2:]):
        draw_accuracy(sample, folder / name, cost)
    if installed('plotly'):
        names.append('subnets.html')
        write_page(sample, folder / names[-1], export)
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
    write_file(path, cfg.pretty_text.encode())


def export_command(config: Path, checkpoint: str | None) -> Callable[[EvaluatedSubnet], str]:
    """The command that exports a subnet.

    Args:
        config: file of :func:`write_config`, with all that was changed on the command line: the numbers of subnets
            depend on it.
        checkpoint: of the supernet, if it has one.

    Returns:
        function: evaluated subnet -> command.
    """
    tool = ('python', 'tools/export_subnet.py') if Path('tools/export_subnet.py').is_file() else \
        ('mim', 'run', 'mmbignas', 'export_subnet')
    weights = checkpoint or 'CHECKPOINT'
    files = (config, weights if '://' in weights else Path(weights))
    return lambda subnet: command(*tool, *files, '--subnet', subnet.number, '--out', f'exported/subnet{subnet.number}')


class Progress:
    """Logs from time to time how many subnets are finished, which is the best, and how long the rest will take.

    Args:
        total: how many there are in all.
        done: how many are finished already.
        log: takes the lines.
    """

    def __init__(self, total: int, done: int, log: Callable[[str], Any]) -> None:
        self.total, self.log = total, log
        self._before, self._begin, self._reported = done, time.time(), 0.

    def update(self, done: int, line: Mapping[str, Any], lines: Callable[[], Iterable[Mapping[str, Any]]],
               metric: str | None) -> None:
        """Take note of a finished subnet.

        Args:
            done: how many are finished, those of other processes too.
            line: of the one that has just been finished.
            lines: gives those of all of them.
            metric: name of the metric that makes one better than another.
        """
        if time.time() - self._reported < REPORT_SECONDS and done < self.total:
            return
        self._reported = time.time()
        seconds = (time.time() - self._begin) / max(done - self._before, 1)
        best = max(map(EvaluatedSubnet.from_line, lines()), key=lambda own: _ranked(own, metric))
        left = timedelta(seconds=round(seconds * max(self.total - done, 0)))
        self.log(f'{done}/{self.total} subnets: {_described(EvaluatedSubnet.from_line(line), metric)}; best so far '
                 f'{_described(best, metric)}; {seconds:.2f} s per subnet, {left} left')


def _ranked(subnet: EvaluatedSubnet, metric: str | None) -> float:
    value = subnet.metric(metric)
    return -math.inf if math.isnan(value) else value


def _described(subnet: EvaluatedSubnet, metric: str | None) -> str:
    value = f'{metric} {format_metric(subnet.metric(metric), 4)}, ' if metric else ''
    return f'{value}{format_macs(subnet.macs)} (subnet {subnet.number})'


def predict_others(sample: AccuracySample, space: SearchSpace, costs: Callable[[Subnet], Mapping[str, float]],
                   others: Iterable[Subnet]) -> dict[str, Any] | None:
    """Predict ``metric1`` of subnets from those that were evaluated.

    Args:
        sample: the evaluated subnets.
        space: their space.
        costs: what a subnet costs.
        others: subnets of the space; those that were evaluated are passed over.

    Returns:
        dict: ``kendall_tau`` on held-out subnets, ``None`` if there is none, and their ``number``, and the ``best`` of
        the others, altogether and near each mark; ``None`` where too few are known, or all are equal.

    Raises:
        DependencyError: without scikit-learn.
    """
    from mmbignas.search import AccuracyPredictor

    known = {own.number for own in sample.subnets}
    ranked = [own for own in sample.subnets if not math.isnan(own.metric(sample.metric1))]
    values = [own.metric(sample.metric1) for own in ranked]
    if len(ranked) < MIN_SUBNETS or max(values) - min(values) < NOISE:
        return None
    subnets = [space[own.number] for own in ranked]
    amounts = [costs(subnet) for subnet in subnets]
    predictor = AccuracyPredictor(space)
    correlation = predictor.cross_validated(subnets, amounts, values)
    rest = [(number, subnet, costs(subnet)) for subnet in others if (number := space.index(subnet)) not in known]
    entries: list[dict[str, Any]] = []
    if rest:
        predicted = predictor.fit(subnets, amounts, values).predict([own[1] for own in rest], [own[2] for own in rest])
        entries = [dict(number=json_number(number), predicted=float(value), **amount, subnet_settings=subnet.to_dict())
                   for (number, subnet, amount), value in zip(rest, predicted)]
        entries.sort(key=lambda own: (-own['predicted'], own['macs']))
    near = {name: [own for own in entries if 100 * abs(own['macs'] - macs) <= macs][:BEST]
            for name, macs in sample.marks.items()}
    tau = correlation.tau if math.isfinite(correlation.tau) else None  # of a regression that says the same of all
    return dict(metric=sample.metric1, kendall_tau=tau, number=correlation.subnets, predicted=len(entries),
                best=entries[:BEST], **{f'best_near_{name}': own for name, own in near.items()})


def report(prediction: Mapping[str, Any]) -> str:
    """What :func:`predict_others` returned, for people."""
    tau = prediction['kendall_tau']
    tau = 'none' if tau is None else f'{tau:.3f}'
    lines = [f'predicted {prediction["metric"]}: Kendall tau {tau} with the evaluated one, on {prediction["number"]} '
             f'subnets that were held out in turn; the best of {prediction["predicted"]} others are expected to be:']
    for name, entries in prediction.items():
        if name.startswith('best') and entries:
            described = [f'subnet {own["number"]} ({own["predicted"]:.4f}, {format_macs(own["macs"])})'
                         for own in entries[:3]]
            lines.append(f'  {name.replace("_", " ")}: {", ".join(described)}')
    return '\n'.join(lines)
