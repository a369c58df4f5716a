"""What a search keeps in the trials of its study, and whether that is what is found there."""
from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from optuna.trial import FrozenTrial, TrialState

from mmbignas.errors import ConfigError
from mmbignas.utils.rules import shown

# Attributes of a trial.
SUBNET, OWNER, HEARTBEAT, CLAIM, LINE, FAILED = 'subnet', 'owner', 'heartbeat', 'claim', 'line', 'failed'


def subnet_trials(trials: Sequence[FrozenTrial], size: int, where: str) -> list[FrozenTrial]:
    """The trials of a study, whose attributes are what a search writes; those that only wait are left out.

    Args:
        trials: all trials of a study.
        size: how many subnets the space has.
        where: the study, for messages.

    Raises:
        ConfigError: naming the first trial and attribute that no search has written.
    """
    found = [trial for trial in trials if trial.state != TrialState.WAITING]  # which Optuna's tools may add
    for trial in found:
        attributes = trial.user_attrs if isinstance(trial.user_attrs, Mapping) else {}
        wrong = [name for name, right in (
            (SUBNET, _is_below(attributes.get(SUBNET), size)), (OWNER, str(attributes.get(OWNER)).count(':') >= 2),
            (LINE, _is_line(attributes.get(LINE), trial.state == TrialState.COMPLETE))) if not right]
        if wrong:
            raise ConfigError(f'storage: {where}: trial {trial.number} is not of a search in this space, or damaged: '
                              f'its {wrong[0]} is {shown(attributes.get(wrong[0]))}; give another storage or '
                              'study_name')
    return found


def _is_below(number: Any, size: int) -> bool:
    # The length first: Python refuses to read thousands of digits.
    return isinstance(number, str) and number.isdecimal() and len(number) <= len(str(size)) and int(number) < size


def _is_line(line: Any, finished: bool) -> bool:
    return isinstance(line, Mapping) and isinstance(line.get('metrics'), Mapping) or line is None and not finished
