"""Whether a search finds good subnets sooner than drawing at random does.

    python benchmarks/search.py                          # on a made-up table over the demo's space
    python benchmarks/search.py LEDGER --config CONFIG   # on real results

Searches are played back: the subnets of a space, all or as many as were evaluated, have their results in a table, from
which each sampler gets what it asks for. The score after a number of evaluations is the hypervolume of MACs and
accuracy, as a share of that of the whole table's Pareto front, the mean over some seeds. LEDGER is a file of JSON lines
with ``subnet_settings``, ``macs``, ``params`` and ``metrics``. The made-up accuracy grows with a network's MACs and
parameters, less and less, with a preference for balanced stages, and noise as that of an evaluation.
"""
from __future__ import annotations

import argparse
import json
import math
import random
import statistics
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import common
import matplotlib
import torch
from hypervolume import hypervolume
from mmengine.config import Config
from optuna.storages import InMemoryStorage

from mmbignas.analysis import pareto_front
from mmbignas.cost import CostModel
from mmbignas.search import DEFAULT_SAMPLER, SAMPLERS, SubnetStudy
from mmbignas.space import Genome, SearchSpace, Subnet
from mmbignas.supernet import Supernet

matplotlib.use('Agg')
from matplotlib import pyplot as plt

DEMO_CONFIG = str(common.ROOT / 'configs' / 'shapes_supnet.py')
COUNTS = (25, 50, 100, 150)
BAR_RATIO = 1.  # random's share of the hypervolume over the default sampler's
Line = dict[str, Any]


class Table:
    """The results of the subnets of a space.

    Args:
        space: the space.
        lines: number of a subnet -> its result.
        metric: what is maximised.
    """

    def __init__(self, space: SearchSpace, lines: Mapping[int, Line], metric: str) -> None:
        self.space, self.lines, self.metric = space, lines, metric
        costs = [line['macs'] for line in lines.values()]
        values = [line['metrics'].get(metric, 0.) for line in lines.values()]
        self.reference = max(costs) * 1.01, min(values)
        self.best = hypervolume(costs, values, self.reference)
        self.front = len(pareto_front(costs, values))

    def costs(self, subnet: Subnet) -> dict[str, float]:
        """Costs by look-up; subnets that are not in the table cost too much."""
        line = self.lines.get(self.space.index(subnet))
        return dict(macs=math.inf, params=math.inf) if line is None else dict(macs=line['macs'], params=line['params'])

    def replay(self, count: int, seed: int, **settings: Any) -> list[float]:
        """A search: the share of the hypervolume after each evaluation."""
        limits = None if len(self.lines) == self.space.size else dict(
            macs=max(line['macs'] for line in self.lines.values()))
        study = SubnetStudy(self.space, self.costs, [self.metric, 'macs'], InMemoryStorage(), seed=seed,
                            constraints=limits, **settings)
        costs: list[float] = []
        values: list[float] = []
        shares = []
        for _ in range(min(count, len(self.lines))):
            proposal = study.ask()
            if proposal is None:
                break
            line = self.lines[proposal.number]
            study.tell(proposal, line)
            costs.append(line['macs'])
            values.append(line['metrics'].get(self.metric, 0.))
            shares.append(hypervolume(costs, values, self.reference) / self.best)
        return shares


def read_table(config: str, ledgers: Sequence[str], metric: str | None, noise: float) -> Table:
    """The table of ledgers, or without any a made-up one."""
    with torch.device('meta'):
        model = common.build_detector(Config.fromfile(config).model)
    if not ledgers:
        return Table(*made_up(CostModel(model, [(128, 128)]), noise), 'accuracy')
    space = Supernet(model).space
    lines = [json.loads(row) for ledger in ledgers for row in Path(ledger).read_text().splitlines() if row.strip()]
    lines = [line for line in lines if 'number' in line]
    sizes = sorted({tuple(line['image_size']) for line in lines if line['subnet_settings'].get('image_size')})
    space = space.with_image_sizes(sizes)
    metric = metric or next(name for line in lines for name in line['metrics'])
    return Table(space, {space.index(line['subnet_settings']): line for line in lines}, metric)


def made_up(cost_model: CostModel, noise: float) -> tuple[SearchSpace, dict[int, Line]]:
    """Results of all subnets of a space, out of thin air."""
    space, rng = cost_model.space, random.Random(0)
    genome = Genome(space)
    gains = [rng.uniform(0.2, 1.) for _ in genome.genes]
    lines = {}
    largest = cost_model(space.max())
    for number, subnet in enumerate(space.traverse()):
        cost = cost_model(subnet)
        levels = [index / (len(gene.choices) - 1) for gene, index in zip(genome.genes, genome.encode(subnet))]
        gain = sum(own * math.sqrt(level) for own, level in zip(gains, levels)) / sum(gains)
        size = math.log(cost.macs / largest.macs) + 0.5 * math.log(cost.params / largest.params)
        unbalanced = statistics.pstdev(levels)
        accuracy = 0.5 + 0.06 * size + 0.1 * gain - 0.05 * unbalanced + rng.gauss(0, noise)
        lines[number] = dict(number=number, macs=cost.macs, params=cost.params, metrics=dict(accuracy=accuracy))
    return space, lines


def draw(curves: Mapping[str, list[list[float]]], path: Path, title: str) -> None:
    """The mean share of each sampler against the number of evaluations."""
    figure, axes = plt.subplots(figsize=(9, 6))
    for name, runs in curves.items():
        means = [statistics.mean(shares) for shares in zip(*runs)]
        axes.plot(range(1, len(means) + 1), means, label=name, linestyle='--' if name == 'random' else '-')
    axes.set(xlabel='evaluated subnets', ylabel='share of the hypervolume of the true Pareto front', title=title)
    axes.set_ylim(bottom=min(statistics.mean(run[min(9, len(run) - 1)] for run in runs) for runs in curves.values()))
    axes.grid(alpha=0.3)
    axes.legend()
    figure.savefig(path, dpi=120, bbox_inches='tight')
    plt.close(figure)


def parse_args() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('ledger', nargs='*', help='files of results')
    parser.add_argument('--config', default=DEMO_CONFIG, help="the supernet's config (default: the demo's)")
    parser.add_argument('--metric', help='what is maximised (default: the first metric of the first result)')
    parser.add_argument('--seeds', type=int, default=5, help='searches for each sampler (default: 5)')
    parser.add_argument('--count', type=int, default=COUNTS[-1], help='evaluations of a search (default: 150)')
    parser.add_argument('--noise', type=float, default=0.003, help='of the made-up accuracy (default: 0.003)')
    parser.add_argument('--sampler', action='append', help="also this one, such as \"dict(type='nsga2', "
                        'population_size=50)"')
    parser.add_argument('--only', action='store_true', help='random and those of --sampler alone')
    parser.add_argument('--out', default='search.png', help='the picture (default: search.png)')
    return parser.parse_args()


def cases(args: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """The searches to compare, by name."""
    result: dict[str, dict[str, Any]] = {'random': dict(sampler='random')}
    if not args.only:
        result.update({name: dict(sampler=name) for name in SAMPLERS})
        result.update({f'{name} + predictor': dict(sampler=name, predictor={}) for name in ('random', DEFAULT_SAMPLER)})
    for text in args.sampler or []:
        settings = eval(text, {'dict': dict})  # as in a config
        predictor = settings.pop('predictor', None) if isinstance(settings, dict) else None
        result[text] = dict(sampler=settings, predictor=predictor)
    return result


def main() -> None:
    """Compare."""
    args = parse_args()
    warnings.simplefilter('ignore')
    table = read_table(args.config, args.ledger, args.metric, args.noise)
    print(f'{len(table.lines)} of {table.space.size} subnets, {table.front} on the Pareto front of {table.metric}')
    curves = {}
    counts = [count for count in COUNTS if count <= args.count]
    print(f'{"":40}' + ''.join(f'{count:>18}' for count in counts) + '   mean and standard deviation, in percent')
    for name, settings in cases(args).items():
        runs = curves[name] = [table.replay(args.count, seed, **settings) for seed in range(args.seeds)]
        cells = []
        for count in counts:
            shares = [100 * run[min(count, len(run)) - 1] for run in runs]
            cells.append(f'{statistics.mean(shares):10.2f} +- {statistics.pstdev(shares):4.2f}')
        print(f'{name:40}' + ''.join(cells), flush=True)
    draw(curves, Path(args.out), f'{len(table.lines)} subnets, {args.seeds} seeds')
    means = {name: {count: round(statistics.mean(run[min(count, len(run)) - 1] for run in runs), 5)
                    for count in counts} for name, runs in curves.items()}
    last, default = counts[-1], DEFAULT_SAMPLER if DEFAULT_SAMPLER in means else list(means)[-1]
    figures = [common.figure(f'random over {default}, after {last}', means['random'][last] / means[default][last],
                             BAR_RATIO)]
    common.report('search', figures, subnets=len(table.lines), metric=table.metric, seeds=args.seeds, shares=means)


if __name__ == '__main__':
    main()
