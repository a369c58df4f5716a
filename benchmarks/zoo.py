"""Which families of MMDetection and MMPretrain become supernets by ``mmbignas.Elastic``.

Every supervised family, one config per config folder, goes through these checks in a process of its own (see
``zoo_check.py``): traced; the plan's self-check; the largest subnet equals the stock network bit for bit; three subnets
equal the networks cut out of it; a subnet has losses and finite gradients. Results are kept in a file, so families can
be checked one after the other; the table is written from all of them. The last line is JSON, with ``value``: families
that pass everything.

Example:
    python benchmarks/zoo.py --config mmdet/retinanet mmpretrain/resnet
"""
from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

# ruff: noqa: E402 (only now can these be found)
import mmdet.models
import mmpretrain.models
import zoo_check
import zoo_peers
from zoo_check import COSTS, SUBNETS, failures
from zoo_families import FAMILIES, NAMED, OUT_OF_SCOPE, REASONS

RESULTS, PEERS = ROOT / 'work_dirs' / 'zoo.jsonl', ROOT / 'work_dirs' / 'zoo_peers.jsonl'
TABLE = ROOT / 'docs' / 'zoo.md'
TIMEOUT = 240
UNKNOWN = dict(failed='not run')
WHOLE = 0.995  # from this share of the MACs on, a network is elastic as a whole


def in_a_fork(function: Callable[[str], dict[str, Any]], family: str, timeout: float) -> dict[str, Any]:
    """What a function returns for a family, in a process of its own: a fork, since importing takes long."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(function(family)))
    process.start()
    sender.close()
    failed = f'not finished within {timeout:.0f} s'
    try:
        if receiver.poll(timeout):
            return receiver.recv()
    except EOFError:
        process.join()
        failed = f'ended with code {process.exitcode}'
    finally:
        process.kill()
        process.join()
    return dict(family=family, config=FAMILIES[family], failed=failed)


def known(path: Path) -> dict[str, dict[str, Any]]:
    """The last result of each family in a file."""
    results = {}
    if path.exists():
        for line in path.read_text(encoding='utf-8').splitlines():
            result = json.loads(line)
            results[result['family']] = result
    return results


def passes(result: Mapping[str, Any]) -> bool:
    """Whether a family passes everything."""
    return not result.get('failed') and ('mmbignas' in result or not failures(result))


def verdict(family: str, result: Mapping[str, Any]) -> str:
    """What the table says of a family: supported, partly or not, and why."""
    failed = failures(result)
    if failed:
        return f'not: {REASONS.get(family) or "; ".join(failed)}'
    if result['share'] >= WHOLE:
        return 'supported'
    reasons = sorted(result['frozen'].items(), key=lambda item: -item[1])[:2]
    return f'partly: {"; ".join(reason for reason, _ in reasons)}'


def row(family: str, result: Mapping[str, Any]) -> str:
    """A line of the table."""
    if not result:
        return f'| {family} | | | | | | | | not run |'
    text = verdict(family, result).replace('|', '/')
    if result.get('failed'):
        return f'| {family} | | | | | | | | {text} |'
    cost = 'exact' if result['cost'] is True else 'none'
    return (f'| {family} | {result["groups"]} of {result["found"]} | {result["runs"]} | {result["share"]:.2f} | '
            f'{result["half"]:.2f} | {result["smallest"]:.2f} | {cost} | {result["seconds"]:.0f} | {text} |')


def table(results: Mapping[str, Mapping[str, Any]], peers: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of the documentation."""
    passed = [family for family, result in results.items() if passes(result)]
    rows = '\n'.join(row(family, results.get(family, {})) for family in FAMILIES)
    scope = '\n'.join(f'- {package}, {kind}: {names}' for package, kinds in OUT_OF_SCOPE.items()
                      for kind, names in kinds.items())
    return f"""# The zoo as supernets

Written by `benchmarks/zoo.py`: one config per config folder of MMDetection and MMPretrain, with random weights, and
with `norm_eval=False, frozen_stages=-1` where a class has these options.
{len(passed)} of {len(results)} families that were run pass every check: the plan's self-check, the largest subnet equal
to the stock network bit for bit, {SUBNETS} subnets equal to the networks cut out of it, losses and gradients of a
subnet, costs.

- groups: channels that are dropped together, of those that the trace found;
- runs: of blocks with a shortcut, which can be left out;
- share: of the MACs in layers that can get narrower; "partly" below {WHOLE}, with what keeps most layers from it;
- half: MACs with all groups at half width, of the full network's;
- smallest: parameters at half width and least depth, of the full network's;
- costs: exact if `CostModel` says of {COSTS} subnets what MMEngine's analysis says of the cut networks. A two-stage
  detector looks at `test_cfg.rpn.max_per_img` proposals, in both;
- s: seconds for everything, with all checks, on one core that others shared.

| family | groups | runs | share | half | smallest | costs | s | |
|---|---|---|---|---|---|---|---|---|
{rows}
{zoo_peers.page(peers) if peers else ''}
## Out of scope

{scope}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Check families, write the table, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', nargs='+', choices=list(FAMILIES), metavar='FAMILY',
                        help='families, such as mmdet/retinanet; all if not given')
    parser.add_argument('--new', action='store_true', help='pass over families that have a result')
    parser.add_argument('--failed', action='store_true', help='pass over families that passed')
    parser.add_argument('--peers', action='store_true', help='put ModelOpt and Torch-Pruning beside it instead; needs '
                        'nvidia-modelopt and torch-pruning')
    parser.add_argument('--timeout', type=float, default=TIMEOUT, help='seconds per family')
    options = parser.parse_args(arguments)
    zoo_check.quiet()
    assert mmdet.models and mmpretrain.models
    path = PEERS if options.peers else RESULTS
    results = known(path)
    path.parent.mkdir(exist_ok=True)
    every = zoo_peers.PEER_FAMILIES if options.peers else dict.fromkeys([*NAMED, *FAMILIES])
    for family in options.config or every:
        if options.new and family in results or options.failed and passes(results.get(family, UNKNOWN)):
            continue
        result = in_a_fork(zoo_peers.shares if options.peers else zoo_check.checked, family, options.timeout)
        with path.open('a', encoding='utf-8') as file:
            file.write(json.dumps(result) + '\n')
        print(f'{family}: {json.dumps(result) if options.peers else verdict(family, result)}', flush=True)
    results = known(RESULTS)
    TABLE.write_text(table(results, known(PEERS)), encoding='utf-8')
    passed = [family for family, result in results.items() if passes(result)]
    print(json.dumps(dict(value=len(passed), run=len(results), families=len(FAMILIES),
                          whole=sum(results[family]['share'] >= WHOLE for family in passed),
                          named_missing=[family for family in NAMED if family not in passed])))


if __name__ == '__main__':
    main()
