"""Where rules are registered."""
from __future__ import annotations

from collections.abc import Callable

from mmbignas.elastic.tracer import CREATING, Rule

RULES: dict[str, Rule] = {}


def rule(*names: str, creates: bool = False) -> Callable[[Rule], Rule]:
    """Register a function as the rule of some operations.

    Args:
        names: operations as torch's schemas call them, e.g. ``aten::convolution``.
        creates: whether the operation makes a tensor out of nothing, so that its rule is asked without channels too.
    """

    def register(function: Rule) -> Rule:
        for name in names:
            assert name not in RULES, f'{name} has two rules'
            RULES[name] = function
        if creates:
            CREATING.add(function)
        return function

    return register
