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
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / 'benchmarks')]

# ruff: noqa: E402 (only now can these be found)
import mmdet.models
import mmpretrain.models
import zoo_check
from zoo_check import failures
from zoo_families import FAMILIES, NAMED, OUT_OF_SCOPE

RESULTS = ROOT / 'work_dirs' / 'zoo.jsonl'
TABLE = ROOT / 'docs' / 'zoo.md'
TIMEOUT = 240
UNKNOWN = dict(failed='not run')
WHOLE = 0.995  # from this share of the MACs on, a network is elastic as a whole


def checked(family: str, timeout: float) -> dict[str, Any]:
    """The result of one family, in a process of its own: a fork, since importing takes as long as checking."""
    context = multiprocessing.get_context('fork')
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=lambda: sender.send(zoo_check.checked(family)))
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


def verdict(result: Mapping[str, Any]) -> str:
    """What the table says of a family: supported, partly or not, and why."""
    failed = failures(result)
    if failed:
        return f'not: {"; ".join(failed)}'
    if result['share'] >= WHOLE:
        return 'supported'
    reasons = sorted(result['frozen'].items(), key=lambda item: -item[1])[:2]
    return f'partly: {"; ".join(reason for reason, _ in reasons)}'


def table(results: Mapping[str, Mapping[str, Any]]) -> str:
    """The page of the documentation."""
    passed = [family for family, result in results.items() if not failures(result)]
    rows = []
    for family in FAMILIES:
        result = results.get(family)
        if result is None:
            rows.append(f'| {family} | | | | | | | | not run |')
            continue
        text = verdict(result).replace('|', '/')
        if result.get('failed'):
            rows.append(f'| {family} | | | | | | | | {text} |')
            continue
        rows.append(f'| {family} | {result["groups"]} of {result["found"]} | {result["runs"]} | '
                    f'{result["share"]:.2f} | {result["half"]:.2f} | {result["smallest"]:.2f} | '
                    f'{"exact" if result.get("cost") is True else "none"} | {result["seconds"]:.0f} | {text} |')
    scope = '\n'.join(f'- {package}, {kind}: {names}' for package, kinds in OUT_OF_SCOPE.items()
                      for kind, names in kinds.items())
    return f"""# The zoo as supernets

Written by `benchmarks/zoo.py`: one config per config folder of MMDetection and MMPretrain, with random weights.
{len(passed)} of {len(results)} families that were run pass every check: the plan's self-check, the largest subnet equal
to the stock network bit for bit, {3} subnets equal to the networks cut out of it, losses and gradients of a subnet.

- groups: channels that are dropped together, of those that the trace found;
- runs: of blocks with a shortcut, which can be left out;
- share: of the MACs in layers that can get narrower; "partly" below {WHOLE};
- half: MACs with all groups at half width, of the full network's;
- smallest: parameters at half width and least depth, of the full network's;
- costs: exact if `CostModel` says of two subnets what MMEngine's analysis says of the cut networks; none where the
  forward pass needs more than an image, or hides operations from the analysis;
- s: seconds for everything, with all checks, on one core.

| family | groups | runs | share | half | smallest | costs | s | |
|---|---|---|---|---|---|---|---|---|
{chr(10).join(rows)}

Out of scope:

{scope}
"""


def main(arguments: Sequence[str] | None = None) -> None:
    """Check families, write the table, print the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--config', nargs='+', choices=list(FAMILIES), metavar='FAMILY',
                        default=list(dict.fromkeys([*NAMED, *FAMILIES])),
                        help='families, such as mmdet/retinanet; all if not given')
    parser.add_argument('--new', action='store_true', help='pass over families that have a result')
    parser.add_argument('--failed', action='store_true', help='pass over families that passed')
    parser.add_argument('--timeout', type=float, default=TIMEOUT, help='seconds per family')
    options = parser.parse_args(arguments)
    zoo_check.quiet()
    assert mmdet.models and mmpretrain.models
    results = known(RESULTS)
    RESULTS.parent.mkdir(exist_ok=True)
    for family in options.config:
        if options.new and family in results or options.failed and not failures(results.get(family, UNKNOWN)):
            continue
        result = checked(family, options.timeout)
        with RESULTS.open('a', encoding='utf-8') as file:
            file.write(json.dumps(result) + '\n')
        print(f'{family}: {verdict(result)}', flush=True)
    results = known(RESULTS)
    TABLE.write_text(table(results), encoding='utf-8')
    passed = [family for family, result in results.items() if not failures(result)]
    print(json.dumps(dict(value=len(passed), run=len(results), families=len(FAMILIES),
                          whole=sum(results[family]['share'] >= WHOLE for family in passed))))


if __name__ == '__main__':
    main()
