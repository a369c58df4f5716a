"""Where a study is kept: a file, or a database."""
from __future__ import annotations

import json
import os
import random
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from optuna.exceptions import StorageInternalError, UpdateFinishedTrialError
from optuna.storages import BaseStorage, JournalStorage, RDBStorage
from optuna.storages.journal import JournalFileBackend, JournalFileOpenLock
from optuna.study import Study
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError, OperationalError, SQLAlchemyError

from mmbignas.errors import ConfigError, DependencyError
from mmbignas.search.passwords import without_password, without_secrets
from mmbignas.utils.identity import differences, listed_differences
from mmbignas.utils.rules import must_be

JOURNAL_SUFFIXES = ('.journal', '.log')
SQLITE_WAIT = 120.  # seconds that a process waits while others write; Optuna's default, 5, is too short
OPEN_ATTEMPTS = 20
SETTINGS = 'mmbignas'  # attribute of the study
OTHER_STUDY = 'give another storage or study_name for this search'


def check_storage(storage: Any) -> None:
    """Raise a ConfigError for anything but a storage as :func:`open_storage` takes it, before one is opened."""
    if not isinstance(storage, (str, Path, BaseStorage)) or storage == '':
        raise must_be('storage', "a file, a URL such as postgresql://user@host/name, or one of Optuna's storages",
                      storage)


def dashboard_address(storage: str | Path) -> str:
    """A file or URL as optuna-dashboard takes it, without a password."""
    text = str(storage)
    if '://' in text:
        return without_password(text)
    path = Path(text).resolve()
    return str(path) if path.suffix in JOURNAL_SUFFIXES else f'sqlite:///{path}'


def shown_storage(storage: Any) -> str:
    """A storage in a message: a file or URL as it was given, without a password, or the class of Optuna's."""
    if not isinstance(storage, (str, Path)):
        return type(storage).__name__
    return without_password(storage)


@contextmanager
def storage_errors(where: str, address: str = '') -> Iterator[None]:
    """Say in one line that a storage cannot be read or written, or holds something else than Optuna's tables.

    Args:
        where: the storage, for messages.
        address: its URL, whose secrets no message shows.

    Raises:
        ConfigError: for what the database, Optuna's reading of it and the disk complain about.
    """
    try:
        yield
    except (ConfigError, DependencyError, UpdateFinishedTrialError):
        raise
    except (SQLAlchemyError, StorageInternalError, OSError, RuntimeError) as error:
        raise ConfigError(f'storage: {where}: cannot be read or written ({_reason(error, address)}); what is finished '
                          'is kept, and the same command goes on once this is mended') from error
    except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
        raise ConfigError(f'storage: {where}: is damaged, or not of Optuna ({_reason(error, address)}); restore it, '
                          'or give another storage') from error


def _reason(error: BaseException, address: str = '') -> str:
    """What is behind an error of Optuna's, in one line, without the secrets of an address."""
    text = str(error.__cause__ or error).splitlines()
    return without_secrets(text[0], address) if text else type(error).__name__


def open_storage(storage: str | Path | BaseStorage) -> BaseStorage:
    """Open a storage of Optuna.

    Args:
        storage: a file, or a URL such as ``postgresql://user@host/name``, or one of Optuna's storages, which is
            returned as it is. A file ending in ``.journal`` or ``.log`` is Optuna's journal, which, unlike SQLite, may
            lie on a network file system; any other is a SQLite database. Folders are made.

    Raises:
        ConfigError: for a storage that cannot be opened.
        DependencyError: when the package that talks to the database is missing.
    """
    check_storage(storage)
    if isinstance(storage, BaseStorage):
        return storage
    text = str(storage)
    if '://' in text:
        return _open_database(text, without_password(text))
    path = Path(text).resolve()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix in JOURNAL_SUFFIXES:
            # The whole path, since the lock file has to be valid in any working directory.
            return _Journal(str(path))
    except OSError as error:
        raise ConfigError(f'storage: {text} cannot be opened ({error.strerror}); give a file that can be written '
                          'to') from error
    # Optuna takes text in braces as a template.
    return _open_database('sqlite:///' + str(path).replace('{', '{{').replace('}', '}}'), text)


class _Journal(JournalStorage):
    """Optuna's journal, whose damage is named by its line."""

    def __init__(self, path: str) -> None:
        self._path = path
        super().__init__(JournalFileBackend(path, _JournalLock(path)))

    def _sync_with_backend(self) -> None:
        try:
            super()._sync_with_backend()
        except (ValueError, LookupError, TypeError, AttributeError, AssertionError) as error:
            raise ConfigError(f'storage: {self._path}: line {self._damaged_line()} is damaged, or not of a journal of '
                              f'Optuna ({_reason(error)}); restore the file, or give another storage') from error

    def _damaged_line(self) -> int:
        """The first line that is no JSON; where there is none, the one that was read last."""
        with open(self._path, 'rb') as file:
            for number, line in enumerate(file, 1):
                try:
                    json.loads(line)
                except ValueError:
                    return number
        return self._replay_result.log_number_read


class _JournalLock(JournalFileOpenLock):
    """The lock of a journal, held for each line that is appended.

    A full disk or a power cut leaves a last line without an end. The next line would be appended to it, and no
    process could read the journal any more. So whoever gets the lock cuts it off first. Its change was never made.
    """

    def __init__(self, path: str) -> None:
        super().__init__(path)
        self._path = path

    def acquire(self) -> bool:
        """Wait for the lock, and cut off an unfinished line."""
        super().acquire()
        try:
            _cut_torn_line(self._path)
        except BaseException:
            self.release()
            raise
        return True


def _cut_torn_line(path: str) -> None:
    """Cut a file after its last complete line."""
    with open(path, 'r+b') as file:
        if not file.seek(0, os.SEEK_END):
            return
        file.seek(-1, os.SEEK_END)
        if file.read() != b'\n':
            file.seek(0)
            file.truncate(file.read().rfind(b'\n') + 1)


def _open_database(url: str, name: str) -> BaseStorage:
    """Open a database; what several processes do at once while its tables are made is tried again."""
    try:
        make_url(url.format(SCHEMA_VERSION=''))  # as Optuna does
        if url.count('@') > 1:  # a part of the password would be taken for the host
            raise ValueError
    except (ArgumentError, ValueError, LookupError):
        # Their texts may have parts of a password.
        raise ConfigError(f'storage: {name} is no URL of a database; give a file, or a URL such as sqlite:///search.db '
                          'or postgresql://user@host/name, with %40 for @ and %2F for / in a password') from None
    options: dict[str, Any] = dict(pool_pre_ping=True)  # a connection may have ended while a subnet was evaluated
    if url.startswith('sqlite'):
        options['connect_args'] = dict(timeout=SQLITE_WAIT)
    for attempt in range(OPEN_ATTEMPTS):
        try:
            return RDBStorage(url, engine_kwargs=options)
        except ImportError as error:
            raise DependencyError(f'storage: {name} needs a package that cannot be imported '
                                  f'({without_secrets(str(error), url)})') from error
        except ArgumentError as error:
            raise ConfigError(f'storage: {name} is no URL of a database ({_reason(error, url)}); give a file, or a URL '
                              'such as sqlite:///search.db or postgresql://user@host/name') from error
        except RuntimeError as error:
            raise ConfigError(f'storage: {name} was made by another version of Optuna ({_reason(error, url)})'
                              ) from error
        except (SQLAlchemyError, StorageInternalError, AssertionError) as error:
            # AssertionError: tables whose version another process has not written yet.
            if attempt + 1 == OPEN_ATTEMPTS or isinstance(error, OperationalError) and 'unable to open' in str(error):
                raise ConfigError(f'storage: {name} cannot be opened ({_reason(error, url)})') from error
        time.sleep(random.uniform(0.05, 0.3))
    raise AssertionError('not reached')


def agree(study: Study, settings: Mapping[str, Any], directions: Sequence[str]) -> None:
    """Write down what a study is about, or refuse one that is about something else.

    Args:
        study: as it was found or created under its name.
        settings: ``identity``, ``objectives`` and ``constraints`` of the search.
        directions: ``minimize`` or ``maximize`` of each objective.

    Raises:
        ConfigError: for a study that is about something else, or whose trials are not those of a search.
    """
    settings = json.loads(json.dumps(settings))
    # The trials are read first: the process that added one had written down the settings before.
    has_trials = bool(study.get_trials(deepcopy=False))
    found = study.user_attrs.get(SETTINGS)
    if found is None and has_trials:
        raise ConfigError(f'storage: the study {study.study_name!r} has trials that are not those of a search for '
                          f'subnets; {OTHER_STUDY}')
    differ = [] if [one.name.lower() for one in study.directions] == list(directions) else ['directions']
    if found is not None:
        if not isinstance(found, Mapping) or not isinstance(found.get('identity'), Mapping):
            raise ConfigError(f'storage: the study {study.study_name!r} is not one of a search for subnets; '
                              f'{OTHER_STUDY}')
        differ += [key for key in ('objectives', 'constraints') if found.get(key) != settings[key]]
        differ += differences(found['identity'], settings['identity'])
    if differ:
        raise ConfigError(f'storage: the study {study.study_name!r} is another one, which differs in '
                          f'{listed_differences(differ)}; {OTHER_STUDY}, or the settings of that study')
    if found is None:
        study.set_user_attr(SETTINGS, settings)
