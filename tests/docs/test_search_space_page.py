"""What docs/concepts/search_space.md says, against the space that it describes."""
from __future__ import annotations

import re
from pathlib import Path

from mmbignas.space import ModuleSpace, SearchSpace
from mmbignas.space.strategies import STRATEGIES

PAGE = (Path(__file__).parents[2] / 'docs' / 'concepts' / 'search_space.md').read_text()


def space_with(strategy: str) -> SearchSpace:
    """The example of the page, as it stands there."""
    [example] = re.findall(r'```python\n(dict\(depth=.*?)```', PAGE, re.DOTALL)
    return SearchSpace(dict(example=ModuleSpace(eval(example.replace('...', repr(strategy))), 3)))


def test_every_strategy_and_how_many_subnets_it_has() -> None:
    rows = re.findall(r'^\| `(\w+)` \| .* \| (\d+) \|$', PAGE, re.MULTILINE)
    assert {name for name, _ in rows} == set(STRATEGIES) - {'ordered_stage_wise_depth'}
    for name, count in rows:
        space = space_with(name)
        assert len({str(space[number].to_dict()) for number in range(space.size)}) == space.size == int(count)
