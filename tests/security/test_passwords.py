"""Passwords of storages do not get into messages."""
import traceback

import pytest

from mmbignas.errors import ConfigError, DependencyError
from mmbignas.search import open_storage
from mmbignas.search import storage as storages
from mmbignas.search.passwords import without_password, without_secrets
from mmbignas.search.storage import dashboard_address

SHOWN = {
    'postgresql://u:hid%40den@h:5432/db': 'postgresql://u:***@h:5432/db',
    'postgresql://u:hid/den@h/db': 'postgresql://u:***@h/db',
    'postgresql://u:hid@den@h/db': 'postgresql://***@h/db',
    'postgresql://u:hid@d/den@h/db?x=1': 'postgresql://***@h/db',
    'postgresql://u:hid:den@h/db': 'postgresql://u:***@h/db',
    'postgresql://u:hid?den@h/db': 'postgresql://u:***@h/db',
    'postgresql://:hidden@h/db': 'postgresql://:***@h/db',
    'postgresql://h/db?user=u&password=hidden': 'postgresql://h/db?password=***&user=u',
    'postgresql://u:hid{den}@h/db?sslpassword=hidden&sslmode=require':
        'postgresql://u:***@h/db?sslmode=require&sslpassword=***',
    'mssql+pyodbc:///?odbc_connect=DRIVER%3DX%3BPWD%3Dhidden': 'mssql+pyodbc:///?odbc_connect=***',
    'postgresql://u:hidden': 'postgresql://***',
    'no name://u:hidden@h/db': 'no name://***@h/db',
    'sqlite:///x.db?timeout=5': 'sqlite:///x.db?timeout=5',
    'search/a@b:c.db': 'search/a@b:c.db',
}


@pytest.mark.parametrize('storage', SHOWN)
def test_what_is_shown(storage):
    assert without_password(storage) == SHOWN[storage]
    if '://' in storage:
        assert dashboard_address(storage) == SHOWN[storage]


@pytest.mark.parametrize('storage', [own for own in SHOWN if 'hid' in own])
def test_errors(storage, monkeypatch):
    """Of addresses that are none, of drivers that are missing, and of what a driver may say."""
    def refuse(url, **options):
        raise storages.OperationalError(f'cannot connect to {url}', {}, Exception(f'with {storage}'))

    for how in (None, refuse):
        with monkeypatch.context() as patch, pytest.raises((ConfigError, DependencyError)) as caught:
            patch.setattr(storages, 'OPEN_ATTEMPTS', 1)
            if how is not None:
                patch.setattr(storages, 'RDBStorage', how)
            open_storage(storage)
        assert 'storage: ' in str(caught.value)
        assert 'hid' not in str(caught.value) and 'den' not in str(caught.value)


def test_no_part_of_a_password_is_in_a_traceback():
    """SQLAlchemy takes it for a port, and Optuna for a template."""
    for storage in ('postgresql://u:hidden', 'postgresql://u:p{hidden}@h/db', 'postgresql://u:p{0}hidden@h/db'):
        with pytest.raises(ConfigError, match='is no URL of a database') as caught:
            open_storage(storage)
        shown = ''.join(traceback.format_exception(caught.value)[-1:])
        assert 'hidden' not in shown and caught.value.__cause__ is None and caught.value.__suppress_context__


def test_secrets_in_a_message():
    storage = 'postgresql://u:hid%40den@h/db?token=hidden'
    text = f'no {storage}: hid@den, hid%40den or hidden'
    assert without_secrets(text, storage) == f'no {without_password(storage)}: ***, *** or ***'
    assert without_secrets('as it is', 'a.db') == 'as it is'
