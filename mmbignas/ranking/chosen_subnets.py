"""Which of the evaluated subnets are trained alone."""
from __future__ import annotations

import json
import random
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

import torch
from mmengine.config import Config

from mmbignas.analysis.accuracy_sample import EvaluatedSubnet
from mmbignas.errors import ConfigError
from mmbignas.evaluation.evaluation_identity import space_hash
from mmbignas.evaluation.ledger import check_identity
from mmbignas.supernet import Supernet
from mmbignas.supernet.build import build_model
from mmbignas.utils.rules import integer, must_be, one_of

LEDGER = 'ledger.jsonl'
FOLDERS = ('', 'sample_accuracy')  # where a ledger lies in a work dir
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


def read_ledger(path: str | Path) -> list[EvaluatedSubnet]:
    """The subnets of a ledger, each once.

    Args:
        path: a file of JSON lines. Those without a number, and what is left of one that was torn, are passed over.

    Raises:
        ConfigError: for a file that has no evaluated subnets.
    """
    subnets: dict[int, EvaluatedSubnet] = {}
    for text in Path(path).read_text(encoding='utf-8', errors='replace').splitlines():
        try:
            line = json.loads(text)
            if 'number' in line:
                own = EvaluatedSubnet.from_line(line)
                subnets.setdefault(own.number, own)
        except (ValueError, TypeError, KeyError):
            continue
    if not subnets:
        raise ConfigError(f'{path}: has no evaluated subnets; give {LEDGER} of a run with SampleAccuracyLoop')
    return list(subnets.values())


def check_space(path: Path, cfg: Config) -> None:
    """Make sure that the subnets of a ledger are of a config's space, as far as both say which that is.

    Args:
        path: the ledger.
        cfg: the config; without ``test_cfg.image_size`` its space is not known.

    Raises:
        ConfigError: if they are of another space.
    """
    sizes, header = (cfg.get('test_cfg') or {}).get('image_size'), None
    with path.open(encoding='utf-8', errors='replace') as file, suppress(ValueError):
        header = json.loads(file.readline())
    if sizes is None or not isinstance(header, Mapping) or 'identity' not in header:
        return
    sizes = [sizes] if isinstance(sizes[0], int) else sizes
    with torch.device('meta'):
        space = Supernet(build_model(cfg)).space.with_image_sizes(sizes)
    check_identity({'space': header['identity'].get('space')}, {'space': space_hash(space)}, str(path))


def check_metric(subnets: Sequence[EvaluatedSubnet], metric: str | None, path: Path) -> str:
    """The name of a metric of the subnets of a ledger; the first one for ``None``.

    Raises:
        ConfigError: for a metric that no subnet has.
    """
    names = list(dict.fromkeys(name for own in subnets for name, value in own.metrics.items()
                               if isinstance(value, (int, float)) and not isinstance(value, bool)))
    if not names:
        raise ConfigError(f'{path}: no subnet has a metric, as nothing was detected; give another ledger')
    return names[0] if metric is None else str(one_of(names).check(metric, '--metric'))


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
