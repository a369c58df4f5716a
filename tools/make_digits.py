"""Write scikit-learn's handwritten digits as a folder of images for a classifier: 1,797 of them, ten classes.

    python tools/make_digits.py data/digits

writes data/digits/{train,val}/{0..9}/*.png, grey, 32x32; every fourth image is for validation. The data come with
scikit-learn, so no network is needed.
"""
import argparse
from pathlib import Path

import cv2
import numpy as np

from mmbignas.cli import run_tool
from mmbignas.dependencies import installed
from mmbignas.errors import DependencyError

BRIGHTEST = 16  # of the data


def main() -> None:
    """Write both splits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder to write to')
    parser.add_argument('--size', type=int, default=32, help='width and height in pixels (default: %(default)s)')
    args = parser.parse_args()
    if not installed('sklearn'):
        raise DependencyError('the digits come with scikit-learn, which is not there: pip install "mmbignas[search]"')
    from sklearn.datasets import load_digits

    digits = load_digits()
    for number, (image, label) in enumerate(zip(digits.images, digits.target)):
        folder = args.out / ('val' if number % 4 == 3 else 'train') / str(label)
        folder.mkdir(parents=True, exist_ok=True)
        pixels = (image * (240 // BRIGHTEST)).astype(np.uint8)
        cv2.imwrite(str(folder / f'{number:04d}.png'), cv2.resize(pixels, (args.size, args.size)))
    print(f'wrote {len(digits.target)} images to {args.out}')


if __name__ == '__main__':
    run_tool(main)
