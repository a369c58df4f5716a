"""Starting Python processes: forked from the server, several that form a group, or for real."""
import contextlib
import os
import pickle
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from filelock import FileLock

ROOT = Path(__file__).parents[2]
PIPE = subprocess.PIPE
FOLDER = 'MMBIGNAS_TEST_SERVER'  # environment variable: where the sockets are


def environment(**changes):
    """The environment of a tool that is started in the repository."""
    return {**os.environ, 'PYTHONPATH': str(ROOT), 'OMP_NUM_THREADS': '1', 'PYTHONWARNINGS': 'ignore', **changes}


class Process:
    """A forked Python process, with what the tests use of :class:`subprocess.Popen`.

    Args:
        args: the arguments of Python: a script, ``-c CODE`` or ``-m MODULE``, and what follows. For
            :func:`call`, a dict.
        folder: where it starts.
        env: its whole environment.
        output: file for standard output, or ``PIPE``.
        errors: file for standard error; default: as standard output.
        imported: whether it starts with mmbignas imported. By default, as the repository's own tools import it before
            anything else, these do.
    """

    returncode = None
    cpu_seconds = 0.  # of all that have ended and were waited for, with what they waited for

    def __init__(self, args, *, folder=ROOT, env=None, output=None, errors=None, imported=None):
        request = args if isinstance(args, dict) else dict(arguments=[str(own) for own in args])
        if imported is None:
            first = Path(folder, request['arguments'][0]) if 'arguments' in request else None
            imported = first is None or first.resolve().parent == ROOT / 'tools'
        request.update(folder=str(folder), environment=env or environment())
        self.stdout, ours = None, []
        if output == PIPE:
            read, output = os.pipe()
            self.stdout = os.fdopen(read)
            ours.append(output)
        elif output is None:
            output = os.open(os.devnull, os.O_WRONLY)
            ours.append(output)
        files = [output if isinstance(output, int) else output.fileno()]
        files.append(files[0] if errors is None else errors.fileno())
        self._connection = _connect('mmbignas' if imported else 'packages')
        data = pickle.dumps(request)
        socket.send_fds(self._connection, [struct.pack('!i', len(data))], files)
        self._connection.sendall(data)
        for file in ours:
            os.close(file)
        [self.pid] = self._receive('!i')

    def wait(self, timeout=None):
        """Wait for its end and return the exit code; after ``timeout`` seconds, kill it and raise."""
        if self.returncode is None:
            if not select.select([self._connection], [], [], timeout)[0]:
                self.kill()
                self._end()
                raise subprocess.TimeoutExpired('python', timeout)
            self._end()
        return self.returncode

    def poll(self):
        """The exit code, or ``None`` while it runs."""
        if self.returncode is None and not select.select([self._connection], [], [], 0)[0]:
            return None
        return self.wait()

    def send_signal(self, number):
        with contextlib.suppress(ProcessLookupError):
            os.kill(self.pid, number)

    def kill(self):
        self.send_signal(signal.SIGKILL)

    def _end(self):
        self.returncode, seconds = self._receive('!if')
        self._connection.close()
        Process.cpu_seconds += seconds

    def _receive(self, form):
        data = self._connection.recv(struct.calcsize(form), socket.MSG_WAITALL)
        if len(data) < struct.calcsize(form):
            raise RuntimeError(f'the server of forked processes has ended: {_folder()}/log')
        return struct.unpack(form, data)


def python(*args, code=0, timeout=240, cwd=ROOT, env=None, real=False, imported=None, split=False):
    """Run Python with these arguments, see that it ends with ``code``, and return what it wrote.

    Args:
        args: the arguments.
        code: exit code; negative for a signal.
        timeout: seconds.
        cwd: folder to start in.
        env: its whole environment; default: :func:`environment`.
        real: start an interpreter, which imports everything itself, in place of forking from the server.
        imported: see :class:`Process`.
        split: return standard output and standard error, each for itself.
    """
    with tempfile.TemporaryFile('w+') as output, tempfile.TemporaryFile('w+') as errors:
        if real:
            process = subprocess.Popen([sys.executable, *map(str, args)], env=env or environment(), cwd=cwd,
                                       stdout=output, stderr=errors if split else output)
            try:
                found = process.wait(timeout)
            finally:
                process.kill()
        else:
            found = Process(args, folder=cwd, env=env, output=output, errors=errors if split else None,
                            imported=imported).wait(timeout)
        texts = []
        for file in (output, errors):
            file.seek(0)
            texts.append(file.read())
    assert found == code, '\n'.join([f'exit code {found}', *(text[-3000:] for text in texts)])
    return tuple(texts) if split else texts[0]


def launch(*args, world_size=2, timeout=240):
    """Run Python in several processes that form a group, as torchrun does; return what all of them wrote.

    The processes are told their rank and where to meet as torchrun tells it. All must end with 0; when one does not,
    the others are killed.
    """
    with contextlib.ExitStack() as stack:
        files = [stack.enter_context(tempfile.TemporaryFile('w+')) for _ in range(world_size)]
        codes = _wait_all(start_group(args, files), timeout, 1)
        for file in files:
            file.seek(0)
        texts = [file.read() for file in files]
    assert codes == [0] * world_size, '\n'.join([f'exit codes {codes}', *(text[-3000:] for text in texts)])
    return ''.join(texts)


def start_group(args, files):
    """Start the processes of :func:`launch`, one for each of the files that they write to."""
    port, processes = free_port(), []
    for rank, file in enumerate(files):
        env = environment(RANK=str(rank), LOCAL_RANK=str(rank), WORLD_SIZE=str(len(files)),
                          LOCAL_WORLD_SIZE=str(len(files)), MASTER_ADDR='127.0.0.1', MASTER_PORT=port)
        processes.append(Process(args, env=env, output=file))
    return processes


def call(function, inputs, timeout=240, grace=20):
    """Call a function of a test module in forked processes, one for each entry of ``inputs``, at the same time.

    Args:
        function: at the top of its module.
        inputs: for each process, a pair of positional and keyword arguments, which can be pickled.
        timeout: seconds, for all.
        grace: seconds that the others get to end by themselves when one has failed; then they are killed.

    Returns:
        list: for each process its exit code, its result (``None`` for a process that did not come to the end) and its
        traceback (empty when there is none).
    """
    with tempfile.TemporaryDirectory() as folder, open(f'{folder}/output', 'w+') as output:
        files = [Path(folder, f'{number}.pickle') for number in range(len(inputs))]
        processes = []
        for file, given in zip(files, inputs):
            file.write_bytes(pickle.dumps(given))
            request = dict(function=(function.__module__, function.__name__), inputs=str(file))
            processes.append(Process(request, output=output))
        codes = _wait_all(processes, timeout, grace)
        import torch
        results = [torch.load(own, weights_only=False) if (own := file.with_suffix('.result')).exists() else None
                   for file in files]
        errors = [own.read_text() if (own := file.with_suffix('.error')).exists() else '' for file in files]
        output.seek(0)
        text = output.read()
    if any(codes):
        print(text[-3000:])
    return list(zip(codes, results, errors))


def free_port():
    """A port of this machine that nobody uses."""
    with socket.socket() as own:
        own.bind(('127.0.0.1', 0))
        return str(own.getsockname()[1])


def _wait_all(processes, timeout, grace):
    """The exit codes; ``grace`` seconds after one has failed, or after ``timeout``, those that still run are killed."""
    deadline = time.monotonic() + timeout
    try:
        while any(process.poll() is None for process in processes) and time.monotonic() < deadline:
            if any(process.returncode for process in processes):
                deadline = min(deadline, time.monotonic() + grace)
                grace = timeout
            time.sleep(.01)
    finally:
        for process in processes:
            if process.poll() is None:
                process.kill()
    return [process.wait() for process in processes]


def _folder():
    """The folder of the sockets; without one, a new one, for the time that this process lives."""
    if FOLDER not in os.environ:
        os.environ[FOLDER] = tempfile.mkdtemp(prefix='mmbignas_tests_')
        os.environ[f'{FOLDER}_OWNER'] = str(os.getpid())
    return os.environ[FOLDER]


def _connect(name):
    """A connection to the server, which the first one who needs it starts."""
    folder = _folder()
    path = f'{folder}/{name}.sock'
    with FileLock(f'{folder}/lock'):
        if not os.path.exists(path):
            with open(f'{folder}/log', 'w') as log:
                process = subprocess.Popen(
                    [sys.executable, str(Path(__file__).with_name('server.py')), folder,
                     os.environ[f'{FOLDER}_OWNER']], env=environment(), cwd=ROOT, stdin=subprocess.DEVNULL,
                    stdout=log, stderr=log, start_new_session=True)
            while not os.path.exists(path):
                assert process.poll() is None, Path(folder, 'log').read_text()
                time.sleep(.01)
    connection = socket.socket(socket.AF_UNIX)
    connection.connect(path)
    return connection
