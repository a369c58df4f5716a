"""The whole way from a stock network to a plan that can be trusted."""
from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from mmbignas.elastic import self_check
from mmbignas.elastic.example import example_batches
from mmbignas.elastic.plan import Plan
from mmbignas.elastic.tracing import UncomputedError, trace
from mmbignas.elastic.verification import verified


def make_plan(model: nn.Module, example: Any = None) -> Plan:
    """Find out what can be dropped in a network: trace it, verify what was found, and prove it.

    Args:
        model: the stock network; it is left as it was, and so are all random states.
        example: a batch to run it with, see :data:`~mmbignas.elastic.example.HOW`; by default one is made.

    Returns:
        Plan: of groups and runs that work, all at once and each by itself.

    Raises:
        ConfigError: for a network that cannot be run, or a plan that the self-check refuses.
    """
    return proven(model, example)[1]


def proven(model: nn.Module, example: Any = None) -> tuple[Mapping[str, Any], Plan]:
    """The plan of :func:`make_plan`, and the batch that it was made with.

    Args:
        model: see :func:`make_plan`.
        example: likewise.

    Raises:
        ConfigError: likewise.
    """
    batch, plan = traced(model, example)
    plan = verified(model, plan, batch)
    self_check.check(model, plan, batch)
    return batch, plan


def traced(model: nn.Module, example: Any = None) -> tuple[Mapping[str, Any], Plan]:
    """A batch that the network computes, and the plan of the trace, not yet verified.

    Args:
        model: see :func:`make_plan`.
        example: likewise.

    Raises:
        ConfigError: when the network computes no batch.
    """
    problem: UncomputedError | None = None
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for batch in example_batches(model, example):
            try:
                return batch, trace(model, batch)
            except UncomputedError as error:  # of several, one of a batch that came further says more
                if problem is None or (problem.mode, error.mode) == ('tensor', 'loss'):
                    problem = error
    assert problem is not None
    raise problem


