"""A process that stands in for one that is forked from the server: for launchers that start processes themselves.

``stand_in.py SCRIPT ...`` has the server run the script, passes on what it writes, and ends as it ends: with its exit
code, or by its signal. When it is killed, the forked process is killed too.
"""
import os
import signal
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.processes import Process

if __name__ == '__main__':
    code = Process(sys.argv[1:], folder=os.getcwd(), env=dict(os.environ), output=sys.stdout, errors=sys.stderr).wait()
    if code < 0:
        if code != -signal.SIGKILL:
            signal.signal(-code, signal.SIG_DFL)
        os.kill(os.getpid(), -code)
    sys.exit(code)
