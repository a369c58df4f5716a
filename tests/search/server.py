"""A PostgreSQL server for tests, where Debian's or anybody's package is installed."""
from __future__ import annotations

import os
import pwd
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path

DEBIAN = Path('/usr/lib/postgresql')  # has a folder for each version


def missing() -> str:
    """What is lacking for a server; '' where everything is there."""
    if _programs() is None:
        return f'there is no initdb, neither on the path nor in {DEBIAN}/*/bin: apt-get install postgresql'
    return '' if find_spec('psycopg') else 'there is no psycopg: pip install "psycopg[binary]"'


def _programs() -> Path | None:
    """The folder of initdb and pg_ctl."""
    found = shutil.which('initdb')
    places = [Path(found).resolve().parent] if found else []
    places += sorted(DEBIAN.glob('*/bin'), reverse=True)
    return next((place for place in places if (place / 'initdb').exists() and (place / 'pg_ctl').exists()), None)


class Server:
    """A server that listens on a socket in a folder of its own, and on no port.

    It refuses to run as root, so root starts it as ``nobody``.
    """

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix='mmbignas_postgresql_'))
        self._user = pwd.getpwnam('nobody') if os.geteuid() == 0 else None
        if self._user is not None:
            os.chown(self.folder, self._user.pw_uid, self._user.pw_gid)
        self._run('initdb', '-U', 'postgres', '-A', 'trust', '-N', '-E', 'UTF8', '--no-locale', '-D',
                  self.folder / 'data')
        self.start()

    @property
    def url(self) -> str:
        """As ``storage`` takes it."""
        return f'postgresql://postgres@/postgres?host={self.folder}'

    def start(self) -> None:
        """Start it, and wait until it answers."""
        self._control('start', '-o', f"-F -c listen_addresses='' -k {self.folder}", '-l', str(self.folder / 'log'))

    def stop(self) -> None:
        """End it at once, with all connections."""
        self._control('stop', '-m', 'immediate')

    def _control(self, *args: str) -> None:
        self._run('pg_ctl', '-w', '-D', self.folder / 'data', *args)

    def _run(self, program: str, *args: object) -> None:
        folder, user = _programs(), self._user
        assert folder is not None
        done = subprocess.run([str(folder / program), *map(str, args)], cwd=self.folder, stdin=subprocess.DEVNULL,
                              stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
                              **({} if user is None else dict(user=user.pw_uid, group=user.pw_gid, extra_groups=[])))
        log = self.folder / 'log'
        assert done.returncode == 0, log.read_text() if log.exists() else program


@contextmanager
def running_server() -> Iterator[Server]:
    """A server for as long as the context is open."""
    server = Server()
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(server.folder)
