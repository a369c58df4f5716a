"""Addresses of databases without what is secret in them, for messages and logs."""
from __future__ import annotations

import re
from pathlib import Path
from urllib.parse import quote_plus, unquote

from sqlalchemy.engine import URL, make_url
from sqlalchemy.exc import ArgumentError

HIDDEN = '***'
SECRET = re.compile('pass|pwd|secret|token|credential|key', re.IGNORECASE)  # in the options after the question mark


def without_password(storage: str | Path) -> str:
    """A storage as it may be shown: a file as it is, a URL as SQLAlchemy renders it, with ``***`` for secrets.

    Args:
        storage: a file or a URL. Of one that is none, as with an ``@`` in the password, little more than where it
            leads is shown.
    """
    text = str(storage)
    scheme, separator, _ = text.partition('://')
    if not separator:
        return text
    url = _parsed(text)
    if url is None:
        where = text.rpartition('@')[2].partition('?')[0] if '@' in text else ''
        return f'{scheme}://{HIDDEN}' + (f'@{where}' if where else '')
    secrets = _secret_options(url)
    shown = url.set(query={name: HIDDEN if name in secrets else value for name, value in url.query.items()})
    return shown.render_as_string(hide_password=True).replace(quote_plus(HIDDEN), HIDDEN)


def without_secrets(message: str, storage: str | Path) -> str:
    """A message of SQLAlchemy or of a driver, with ``***`` in place of the secrets of a storage.

    Args:
        message: the text.
        storage: the file or URL that it is about.
    """
    text = str(storage)
    if '://' not in text:
        return message
    password = text.partition('://')[2].rpartition('@')[0].partition(':')[2]
    url = _parsed(text)
    options = [] if url is None else list(_secret_options(url).values())
    message = message.replace(text, without_password(text))
    for secret in sorted({password, unquote(password), *options} - {''}, key=len, reverse=True):
        message = message.replace(secret, HIDDEN)
    return message


def _parsed(text: str) -> URL | None:
    if text.count('@') > 1:  # SQLAlchemy would take a part of the password for the host
        return None
    try:
        return make_url(text)
    except (ArgumentError, ValueError):
        return None


def _secret_options(url: URL) -> dict[str, str]:
    options = {name: value if isinstance(value, str) else ' '.join(value) for name, value in url.query.items()}
    return {name: value for name, value in options.items() if SECRET.search(f'{name}={value}')}
