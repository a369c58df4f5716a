"""Which of the evaluated subnets are trained alone."""
from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from mmengine.config import Config
from torch import nn

from mmbignas.analysis.accuracy_sample import EvaluatedSubnet
from mmbignas.errors import ConfigError
from mmbignas.evaluation.ledger import check_identity, line_number, parsed_line
from mmbignas.evaluation.survey import SubnetCosts
from mmbignas.space import IMAGE_SIZE, SearchSpace, Subnet
from mmbignas.supernet import Supernet
from mmbignas.supernet.hashes import space_hash
from mmbignas.utils.identity import part_of, settings_of
from mmbignas.utils.metric_values import is_number
from mmbignas.utils.rules import integer, list_of, must_be, one_of

LEDGER = 'ledger.jsonl'
FOLDERS = ('', 'sample_accuracy')  # where a ledger lies in a work dir
MODEL = ('model', 'data_preprocessor')  # parts of a config
SIZE = list_of(integer(1, 10**5), '[height, width] in pixels', least=2, most=2)
MIN_COUNT = 3  # fewer say nothing about a ranking


def find_ledger(path: str | Path) -> Path:
    """The record of evaluated subnets.

    Args:
        path: the file, or the folder it lies in, or the work dir of the run.

    Raises:
        ConfigError: if there is none.
    """
    candidates = [Path(path, folder, LEDGER) for folder in FOLDERS] if Path(path).is_dir() else [Path(path)]
    for candidate in candidates:
        if candidate.is_file():
            return candidate
    raise ConfigError(f'ledger not found: {" or ".join(map(str, candidates))}; give {LEDGER} of a run with '
                      'SampleAccuracyLoop, or its folder')


def read_ledger(path: str | Path, model: nn.Module, image_sizes: Any = None) -> list[EvaluatedSubnet]:
    """The subnets of a ledger, each once, with the costs that they have.

    Args:
        path: a file of JSON lines. Those that are damaged, or not of a subnet of the model, are passed over.
        model: the supernet.
        image_sizes: ``[height, width]`` in pixels or a list of such sizes, as the config of the run says them; ``None``
            for those that stand in the lines, where numbers are taken as they are.

    Raises:
        ConfigError: for a file that has no evaluated subnets.
    """
    lines = [line for line in map(parsed_line, Path(path).read_bytes().splitlines()) if line is not None
             and line_number(line) is not None and SIZE.holds(line.get('image_size'))]
    costs: SubnetCosts | None = None
    sizes = image_sizes or [list(size) for size in dict.fromkeys(tuple(line['image_size']) for line in lines)]
    subnets: dict[int, EvaluatedSubnet] = {}
    reason = ''
    for line in lines:
        costs = costs or SubnetCosts(model, sizes, None, 'test_cfg')
        number = int(line['number'])
        try:
            subnet = _subnet_of(line, costs.space)
        except ConfigError as error:  # settings outside the space
            reason = f' ({error})'
            continue
        if image_sizes is None or costs.space.index(subnet) == number:
            cost = costs.cost_model(subnet)
            subnets.setdefault(number, EvaluatedSubnet(
                number, line['subnet_settings'], costs.image_size(subnet), cost.macs, cost.params,
                metrics=line['metrics']))
    if not subnets:
        raise ConfigError(f'{path}: has no evaluated subnets of this model{reason}; give {LEDGER} of a run with '
                          'SampleAccuracyLoop')
    return list(subnets.values())


def _subnet_of(line: Mapping[str, Any], space: SearchSpace) -> Subnet:
    """The subnet that the settings of a line describe, with an image size where the space has several."""
    settings = line.get('subnet_settings')
    if not isinstance(settings, Mapping):
        raise must_be('subnet_settings', 'settings of a subnet', settings)
    more = {IMAGE_SIZE: line['image_size']} if len(space.image_sizes) > 1 else {}
    subnet = space.canonical({**settings, **more})
    if len(space.image_sizes) == 1 and tuple(line['image_size']) != space.image_sizes[0]:
        raise must_be('image_size', f'{space.image_sizes[0]}', line['image_size'])
    return subnet


def check_same_model(path: Path, cfg: Config, model: nn.Module) -> None:
    """Make sure that the subnets of a ledger are those of a config's model, as far as the ledger says of which it is.

    Args:
        path: the ledger.
        cfg: the config; without ``test_cfg.image_size`` its space is not known.
        model: the supernet that was built from it.

    Raises:
        ConfigError: naming the settings of the model that differ, or ``space``.
    """
    with path.open('rb') as file:
        header = parsed_line(file.readline()) or {}
    identity, sizes = header.get('identity'), (cfg.get('test_cfg') or {}).get('image_size')
    if not isinstance(identity, Mapping):
        return
    expected = settings_of(**{part: cfg[part] for part in MODEL if part in cfg})
    if sizes is not None:
        sizes = [sizes] if isinstance(sizes[0], int) else sizes
        expected['space'] = space_hash(Supernet(model).space.with_image_sizes(sizes))
    found = {name: value for name, value in identity.items()
             if name in expected or part_of(name) in MODEL}
    parts = {part_of(name) for name in found}
    check_identity(found, {name: value for name, value in expected.items() if part_of(name) in parts}, str(path))


def check_metric(subnets: Sequence[EvaluatedSubnet], metric: str | None, path: Path) -> str:
    """The name of a metric of the subnets of a ledger; the first one for ``None``.

    Raises:
        ConfigError: for a metric that no subnet has, or that is no number for one of them.
    """
    names = dict.fromkeys(name for own in subnets for name, value in own.metrics.items()
                          if is_number(value) and not isinstance(value, bool))
    # Neither ranked as 0 nor left out, so that the chosen ones are still spread over all.
    none = {name for own in subnets for name, value in own.metrics.items() if not is_number(value)}
    numbers = [name for name in names if name not in none]
    if not numbers:
        raise ConfigError(f'{path}: no metric is a number for each subnet that has it; give another ledger')
    return numbers[0] if metric is None else str(one_of(numbers).check(metric, '--metric'))


def choose_spread(subnets: Sequence[EvaluatedSubnet], metric: str, count: int, seed: int) -> list[EvaluatedSubnet]:
    """Subnets that are spread over their accuracy.

    Args:
        subnets: what there is.
        metric: name of the metric that orders them.
        count: how many, at least 3.
        seed: of the draws.

    Returns:
        list: ascending by the metric: the worst, one of each of ``count - 2`` groups of neighbours in rank, as equal
        in size as can be, and the best.

    Raises:
        ConfigError: for a count that is not allowed.
    """
    if len(subnets) < MIN_COUNT:
        raise must_be('the number of subnets in the ledger', f'{MIN_COUNT} or more', len(subnets))
    integer(MIN_COUNT, len(subnets)).check(count, '--count')
    order = sorted(subnets, key=lambda own: (own.metric(metric), own.number))
    rng, between = random.Random(seed), len(order) - 2
    ends = [1 + group * between // (count - 2) for group in range(count - 1)]
    drawn = [order[rng.randrange(begin, end)] for begin, end in zip(ends, ends[1:])]
    return [order[0], *drawn, order[-1]]
