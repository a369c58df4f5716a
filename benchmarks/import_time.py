"""What ``import mmbignas`` costs beyond MMEngine, MMDetection and MMPretrain.

    python benchmarks/import_time.py [--rounds 7]

The floor is what a config that names classes of these three takes: importing them and registering all their classes.
Against it stand ``import mmbignas`` alone, which imports what it needs of them, and the floor with ``import mmbignas``
after it. Each case is a fresh process, and the cases alternate; a first round, which fills the disk's cache, is not
counted. Seconds are CPU seconds from the start of the process to the end of the imports, so a busy machine disturbs
them little. Below the table are the packages that ``import mmbignas`` brings beyond the floor's, which should be its
own alone; ``python -X importtime -c 'import mmbignas'`` shows the way to each.
"""
from __future__ import annotations

import argparse
import subprocess
import sys

import common

BAR = 1.
FLOOR = '''
import mmdet.utils, mmengine, mmpretrain.utils
mmdet.utils.register_all_modules()
mmpretrain.utils.register_all_modules()
'''
CASES = {'floor': FLOOR, 'mmbignas': 'import mmbignas', 'floor and mmbignas': FLOOR + 'import mmbignas'}
SECONDS = '\nimport time; print(time.process_time())'
PACKAGES = "\nimport sys; print(*sorted({name.partition('.')[0] for name in sys.modules}))"


def output(code: str) -> str:
    """The last line that a fresh process prints."""
    command = [sys.executable, '-W', 'ignore', '-c', code]
    done = subprocess.run(command, cwd=common.ROOT, stdout=subprocess.PIPE,
                          stderr=subprocess.DEVNULL, text=True, check=True)
    return done.stdout.splitlines()[-1]


def seconds(code: str) -> float:
    """CPU seconds that a fresh process takes for its imports."""
    return float(output(code + SECONDS))


def main() -> None:
    """Measure the cases, and list the packages that only ``import mmbignas`` brings."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--rounds', type=int, default=7, help='processes of each case (default: %(default)s)')
    rounds = parser.parse_args().rounds

    times = common.interleave({name: lambda code=code: seconds(code) for name, code in CASES.items()}, rounds)
    for name, values in times.items():
        print(f'{name:18}  {common.statistics.median(values):6.2f} s  ({min(values):.2f} to {max(values):.2f})',
              flush=True)
    extra = {name: [ours - floor for ours, floor in zip(values, times['floor'], strict=True)]
             for name, values in times.items() if name != 'floor'}
    packages = {name: set(output(code + PACKAGES).split()) for name, code in CASES.items()}
    brought = sorted(packages['mmbignas'] - packages['floor'])
    print('packages beyond the floor\'s:', *brought)

    figures = [common.figure(label, common.statistics.median(extra[name]), BAR, 's') for name, label in [
        ('floor and mmbignas', 'mmbignas after the floor'), ('mmbignas', 'mmbignas alone, beyond the floor')]]
    medians = {name: round(common.statistics.median(values), 3) for name, values in times.items()}
    common.report('import_time', figures, seconds=medians, packages=brought)


if __name__ == '__main__':
    main()
