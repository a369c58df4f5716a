"""What all that work on a study must agree about."""
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.study import Study

from mmbignas.errors import ConfigError

SETTINGS = 'mmbignas'  # attribute of the study
ALLOWED = 'allowed: another storage or study_name for this search'


def agree(study: Study, settings: Mapping[str, Any], directions: Sequence[str]) -> None:
    """Write down what a study is about, or refuse one that is about something else.

    Args:
        study: as it was found, or made, under its name.
        settings: ``identity``, ``objectives`` and ``constraints`` of the search.
        directions: ``minimize`` or ``maximize`` of each objective.

    Raises:
        ConfigError: for a study that is about something else, or whose trials are none of a search.
    """
    settings = json.loads(json.dumps(settings))
    # The trials are read first: the process that added one had written down the settings before.
    has_trials = bool(study.get_trials(deepcopy=False))
    found = study.user_attrs.get(SETTINGS)
    if found is None and has_trials:
        raise ConfigError(f'storage: the study {study.study_name!r} has trials that are not those of a search for '
                          f'subnets; {ALLOWED}')
    differ = [] if [one.name.lower() for one in study.directions] == list(directions) else ['directions']
    if found is not None:
        differ += [key for key in ('objectives', 'constraints') if found[key] != settings[key]]
        mine, theirs = settings['identity'], found['identity']
        differ += [f'identity.{part}' for part in sorted({*mine, *theirs}) if mine.get(part) != theirs.get(part)]
    if differ:
        raise ConfigError(f'storage: the study {study.study_name!r} is another one, its {", ".join(differ)} differ; '
                          f'{ALLOWED}, or the settings of that one')
    if found is None:
        study.set_user_attr(SETTINGS, settings)
