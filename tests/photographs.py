"""Photographs of tiles with drawn defects, and the class of each pixel: 0 glaze, 1 crack, 2 hole, 255 padding."""

import numpy as np

HEIGHT, WIDTH, PADDED = 112, 80, 4


def tiles(number):
    """Pictures uint8 (n, 112, 80) and labels: cracks and holes are dark, the first and last rows are padding."""
    draw = np.random.default_rng(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    pictures, labels = np.empty((number, HEIGHT, WIDTH), "u1"), np.zeros((number, HEIGHT, WIDTH), "u1")
    for picture, label in zip(pictures, labels, strict=True):
        values = 150 + 20 * np.sin(x / 9 + y / 14) + draw.normal(0, 6, (HEIGHT, WIDTH))
        path = draw.uniform(15, WIDTH - 15) + np.cumsum(draw.normal(0, 0.7, HEIGHT))
        label[np.abs(x - path[:, None]) < 1.6] = 1
        label[(x - draw.uniform(15, 65)) ** 2 + (y - draw.uniform(15, 97)) ** 2 < 20] = 2
        values -= np.array([0, 70, 110])[label]
        label[:PADDED] = label[-PADDED:] = 255
        values[label == 255] = 0
        picture[...] = values.clip(0, 255)
    return pictures, labels
