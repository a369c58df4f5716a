"""Python processes for the tests: forked from a server that has done the slow imports, or started for real.

A forked process is a process of its own, with an id, arguments, a folder, an environment, output, signals and an exit
code of its own. It does not pay the seconds that ``import torch, mmdet`` takes.
"""
from tests.processes.client import PIPE, ROOT, Process, call, environment, free_port, launch, python, start_group

__all__ = ['PIPE', 'ROOT', 'Process', 'call', 'environment', 'free_port', 'launch', 'python', 'start_group']
