"""Write scikit-learn's handwritten digits as a folder of images for a classifier: 1,797 of them, ten classes.

    python tools/make_digits.py data/digits

writes data/digits/{train,val}/{0..9}/*.png, grey, 32x32. The data come with scikit-learn, so no network is needed. The
same seed gives the same files.
"""
import argparse
from pathlib import Path

import cv2
import numpy as np

from mmbignas.dependencies import installed
from mmbignas.engine.launch import run_tool
from mmbignas.errors import DependencyError

VALIDATION_SHARE = 0.2


def main() -> None:
    """Write both splits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder to write to')
    parser.add_argument('--size', type=int, default=32, help='width and height in pixels (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='of the split (default: %(default)s)')
    args = parser.parse_args()
    if not installed('sklearn'):
        raise DependencyError('the digits come with scikit-learn, which is not there: pip install "mmbignas[search]"')
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    splits = train_test_split(np.arange(len(digits.target)), test_size=VALIDATION_SHARE, stratify=digits.target,
                              random_state=args.seed)
    for name, numbers in zip(('train', 'val'), splits):
        for number in sorted(numbers):
            folder = args.out / name / str(digits.target[number])
            folder.mkdir(parents=True, exist_ok=True)
            image = np.clip(digits.images[number] * 16, 0, 255).astype(np.uint8)
            image = cv2.resize(image, (args.size, args.size), interpolation=cv2.INTER_CUBIC)
            cv2.imwrite(str(folder / f'{number:04d}.png'), image)
    print(f'wrote {len(splits[0])} training and {len(splits[1])} validation images to {args.out}')


if __name__ == '__main__':
    run_tool(main)
