"""How far a supernet's ranking can be trusted: python tools/trust.py CONFIG LEDGER [options].

Trains some of the sampled subnets alone, each from scratch, and compares their ranking with the supernet's. The same
command goes on where it was interrupted.
"""

import argparse
from functools import partial
from pathlib import Path

from mmbignas.cli import add_config_arguments, default_work_dir, read_config, run_tool
from mmbignas.ranking.trust import TrustCheck


def parse_args() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    add_config_arguments(parser, 'config file of the supernet')
    parser.add_argument('ledger', help='ledger.jsonl of a run with SampleAccuracyLoop, or the work dir of that run')
    parser.add_argument('--count', type=int, default=10,
                        help='how many subnets, from the worst to the best of the ledger (default: 10)')
    parser.add_argument('--epochs', type=int, metavar='N',
                        help="of each training; schedules are scaled with them (default: the config's)")
    parser.add_argument('--max-iters', type=int, metavar='N', help='the same, for a config that trains by iterations')
    parser.add_argument('--metric', metavar='NAME',
                        help='what makes one subnet better than another, e.g. coco/bbox_mAP (default: the first one in '
                        'the ledger)')
    parser.add_argument('--seed', type=int, default=0, help='of the choice of subnets and of training (default: 0)')
    parser.add_argument('--out', metavar='DIR',
                        help='folder for the results (default: trust in the work dir of the config)')
    return parser.parse_args()


def main() -> None:
    """Train and compare."""
    args = parse_args()
    cfg = read_config(args)
    check = TrustCheck(cfg, args.ledger, args.count, args.epochs, args.max_iters, args.metric, args.seed,
                       log=partial(print, flush=True))
    check.run(args.out or Path(default_work_dir(cfg), 'trust'))


if __name__ == '__main__':
    run_tool(main)
