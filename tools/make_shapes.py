"""Draw a small detection data set in COCO format: circles, squares and triangles that overlap, in noise.

    python tools/make_shapes.py data/shapes

writes data/shapes/{train,val}/*.png and data/shapes/annotations/{train,val}.json. The same seed gives the same files.
"""
import argparse
import json
from pathlib import Path

import cv2
import numpy as np

CLASSES = ('circle', 'square', 'triangle')


def corners(kind: str, centre: np.ndarray, radius: float, angle: float) -> np.ndarray:
    """The outline of a shape, ``(n, 2)`` in pixels, turned by ``angle`` (radians) from upright."""
    count, first = {'circle': (32, 0.), 'square': (4, np.pi / 4), 'triangle': (3, -np.pi / 2)}[kind]
    angles = angle + first + np.arange(count) * 2 * np.pi / count
    return centre + radius * np.stack([np.cos(angles), np.sin(angles)], axis=1)


def draw_image(rng: np.random.Generator, size: int) -> tuple[np.ndarray, list[dict]]:
    """One image with one to six shapes.

    Args:
        rng: where the randomness comes from.
        size: width and height in pixels.

    Returns:
        tuple: the image, ``(size, size, 3)`` uint8, and its annotations. A shape that a later one hides by more than
        60 % is not annotated.
    """
    image = np.full((size, size, 3), rng.integers(60, 180, 3), np.float32)
    image += np.linspace(-40, 40, size)[:, None, None] * rng.uniform(-1, 1)
    owner = np.zeros((size, size), np.int32)
    shapes = []
    for number in range(1, rng.integers(1, 7) + 1):
        label = int(rng.integers(len(CLASSES)))
        radius = float(np.exp(rng.uniform(np.log(size * 0.12), np.log(size * 0.25))))
        centre = rng.uniform(radius * 0.7, size - radius * 0.7, 2)
        outline = corners(CLASSES[label], centre, radius, rng.uniform(-0.3, 0.3))
        mask = np.zeros((size, size), np.uint8)
        cv2.fillPoly(mask, [np.round(outline).astype(np.int32)], 1)
        colour = rng.integers(0, 256, 3).astype(np.float32)
        image[mask > 0] = colour
        owner[mask > 0] = number
        low, high = np.clip(outline.min(0), 0, size), np.clip(outline.max(0), 0, size)
        shapes.append((number, label, int(mask.sum()), low, high - low))
    image = cv2.GaussianBlur(image, (3, 3), 0) + rng.normal(0, 12, image.shape)
    annotations = []
    for number, label, area, corner, extent in shapes:
        visible = int((owner == number).sum())
        if visible >= 0.4 * max(area, 1):
            annotations.append(dict(category_id=label + 1, bbox=[*corner.tolist(), *extent.tolist()], area=visible,
                                    iscrowd=0))
    return np.clip(image, 0, 255).astype(np.uint8), annotations


def make_split(folder: Path, name: str, count: int, size: int, seed: int) -> None:
    """Write ``count`` images and their annotation file.

    Args:
        folder: root of the data set.
        name: name of the split.
        count: number of images.
        size: width and height in pixels.
        seed: seed of the split.
    """
    (folder / name).mkdir(parents=True, exist_ok=True)
    (folder / 'annotations').mkdir(exist_ok=True)
    rng = np.random.default_rng(seed)
    coco: dict = dict(images=[], annotations=[],
                      categories=[dict(id=i + 1, name=name) for i, name in enumerate(CLASSES)])
    for image_id in range(1, count + 1):
        image, annotations = draw_image(rng, size)
        file_name = f'{image_id:05d}.png'
        cv2.imwrite(str(folder / name / file_name), image)
        coco['images'].append(dict(id=image_id, file_name=file_name, width=size, height=size))
        for annotation in annotations:
            coco['annotations'].append(dict(annotation, id=len(coco['annotations']) + 1, image_id=image_id))
    (folder / 'annotations' / f'{name}.json').write_text(json.dumps(coco))


def main() -> None:
    """Write both splits."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument('out', type=Path, help='folder to write to')
    parser.add_argument('--train', type=int, default=400, help='training images (default: %(default)s)')
    parser.add_argument('--val', type=int, default=100, help='validation images (default: %(default)s)')
    parser.add_argument('--size', type=int, default=128, help='width and height in pixels (default: %(default)s)')
    parser.add_argument('--seed', type=int, default=0, help='default: %(default)s')
    args = parser.parse_args()
    make_split(args.out, 'train', args.train, args.size, args.seed)
    make_split(args.out, 'val', args.val, args.size, args.seed + 1)
    print(f'wrote {args.train} training and {args.val} validation images to {args.out}')


if __name__ == '__main__':
    main()
