"""The server that has done the slow imports: each request gets a process that is forked from it.

It is a script, ``server.py FOLDER OWNER``, that listens on two sockets in ``FOLDER`` and ends when the process
``OWNER`` has ended. Processes from ``packages.sock`` know the packages that mmbignas needs, but have not imported
mmbignas: what its import registers is missing until they do it themselves. Those from ``mmbignas.sock`` have.

A request is a pickled dict, with files for standard output and standard error beside it. The answers are the process
id and, later, the exit code, negative for a signal, as ``subprocess`` has it, with the seconds of CPU. When the one
who asked goes away, the process and all others of its process group are killed.
"""
import contextlib
import gc
import importlib
import os
import pickle
import runpy
import select
import signal
import socket
import struct
import sys
import threading
import traceback
import types
import warnings
from pathlib import Path

PACKAGES = ['torch', 'torch.multiprocessing', 'mmcv.ops', 'mmengine.runner', 'mmdet.apis', 'mmdet.datasets',
            'mmdet.utils', 'mmpretrain.apis', 'mmpretrain.datasets', 'mmpretrain.models', 'pytest', 'hypothesis',
            'optuna', 'sklearn.gaussian_process', 'matplotlib.pyplot']
SLEEP = 1.  # seconds between two looks at the owner


def serve(listener, owner):
    """Answer requests until the owner has ended; returns in forked processes alone, with what they shall do."""
    listener.settimeout(SLEEP)
    while _lives(owner):
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                pass
        try:
            connection, _ = listener.accept()
        except TimeoutError:
            continue
        if os.fork() == 0:
            listener.close()
            connection.settimeout(None)
            return _handle(connection)
        connection.close()
    os._exit(0)


def _handle(connection):
    """Fork the process that was asked for, and wait for it; returns in that process."""
    header, files, _, _ = socket.recv_fds(connection, 4, 2)
    if not header:  # the client thought better of it
        os._exit(0)
    request = pickle.loads(connection.recv(struct.unpack('!i', header)[0], socket.MSG_WAITALL))
    pid = os.fork()
    if pid == 0:
        connection.close()
        os.setpgid(0, 0)
        for target, file in enumerate(files, 1):
            os.dup2(file, target)
            os.close(file)
        return request
    with contextlib.suppress(PermissionError, ProcessLookupError):  # the child does it too: whoever is first
        os.setpgid(pid, pid)
    for file in files:
        os.close(file)
    connection.sendall(struct.pack('!i', pid))
    ended = os.pidfd_open(pid)
    if ended not in select.select([ended, connection], [], [])[0]:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    _, status, used = os.wait4(pid, 0)
    with contextlib.suppress(OSError):
        connection.sendall(struct.pack('!if', os.waitstatus_to_exitcode(status), used.ru_utime + used.ru_stime))
    os._exit(0)


def _lives(process):
    try:
        os.kill(process, 0)
    except ProcessLookupError:
        return False
    return True


def become(request, path):
    """Make of a forked process what the request says; it ends as Python ends.

    Args:
        request: ``arguments`` of Python, or a ``function`` (module and name) and a file with its pickled ``inputs``;
            ``folder`` and ``environment``.
        path: what stands in ``sys.path`` behind the folder of the script and ``PYTHONPATH``.
    """
    os.chdir(request['folder'])
    os.environ.clear()
    os.environ.update(request['environment'])
    import numpy as np
    np.random.seed()  # noqa: NPY002  (the module's generator, as of an interpreter that has just started)
    added = [own for own in os.environ.get('PYTHONPATH', '').split(os.pathsep) if own]
    sys.path[:] = [*map(os.path.abspath, added), *path]
    _filter_warnings(os.environ.get('PYTHONWARNINGS', '').split(','))
    if 'function' in request:
        _call(*request['function'], Path(request['inputs']))
        return
    arguments = request['arguments']
    sys.orig_argv = [sys.executable, *arguments]
    while arguments[0] == '-W':
        _filter_warnings([arguments[1]])
        arguments = arguments[2:]
    first, *rest = arguments
    if first == '-c':
        sys.argv = ['-c', *rest[1:]]
        sys.path.insert(0, '')
        main = types.ModuleType('__main__')
        sys.modules['__main__'] = main
        exec(compile(rest[0], '<string>', 'exec'), main.__dict__)
    elif first == '-m':
        sys.argv = rest
        sys.path.insert(0, os.getcwd())
        runpy.run_module(rest[0], run_name='__main__', alter_sys=True)
    else:
        sys.argv = arguments
        sys.path.insert(0, os.path.dirname(os.path.abspath(first)))
        runpy.run_path(first, run_name='__main__')


def _filter_warnings(options):
    for option in filter(None, options):
        action, _, _ = option.partition(':')
        warnings.simplefilter(action)


def _call(module, name, file):
    """Call a function with the inputs in a file; leave what it returns, or the traceback, beside them."""
    args, kwargs = pickle.loads(file.read_bytes())
    try:
        result = getattr(importlib.import_module(module), name)(*args, **kwargs)
    except Exception:
        file.with_suffix('.error').write_text(traceback.format_exc())
        raise
    import torch
    torch.save(result, file.with_suffix('.result'))


def main(folder, owner):
    """Listen, import, and serve; returns in forked processes alone."""
    listeners = []
    for name in ('packages', 'mmbignas'):
        listeners.append(socket.socket(socket.AF_UNIX))
        listeners[-1].bind(f'{folder}/{name}.starting')
        listeners[-1].listen(64)
        os.rename(f'{folder}/{name}.starting', f'{folder}/{name}.sock')
    root = str(Path(__file__).parents[2])
    path = [own for own in sys.path[1:] if own != root]
    for name in PACKAGES:
        with contextlib.suppress(ImportError):  # some packages are optional, and so are the tests that need them
            importlib.import_module(name)
    importlib.import_module('once').warm_up()  # beside this script
    packages, mmbignas = listeners
    if os.fork() == 0:
        packages.close()
        sys.path[:] = [root, *path]
        importlib.import_module('mmbignas')
        return _ready(mmbignas, owner), path
    mmbignas.close()
    return _ready(packages, owner), path


def _ready(listener, owner):
    assert threading.active_count() == 1
    gc.collect()
    gc.freeze()  # so that the collector of a forked process does not touch, and thereby copy, all that is imported
    return serve(listener, owner)


if __name__ == '__main__':
    become(*main(sys.argv[1], int(sys.argv[2])))
