import numpy as np
import pytest

from hpc_train.data.shards import write_shards


@pytest.fixture(scope="session")
def digits(tmp_path_factory):
    """Shards of scikit-learn's handwritten digits: 1,400 to train, 397 to test, 8 x 8 x 1, ten classes."""
    datasets = pytest.importorskip("sklearn.datasets")
    images, labels = datasets.load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) * (255 / 16)).astype("uint8")
    folder = tmp_path_factory.mktemp("digits")
    write_shards(folder, "train", images[:1400], labels[:1400], classes=10, shards=3)
    write_shards(folder, "test", images[1400:], labels[1400:], classes=10, shards=2)
    return folder


@pytest.fixture
def blobs(tmp_path):
    """A function that writes float32 shards of 8 x 8 images, `train` and `test` samples, after a change by the test."""

    def write(train=64, test=16, change=lambda inputs, targets: None, classes=3):
        draw = np.random.default_rng(0)
        for split, samples in (("train", train), ("test", test)):
            inputs = draw.normal(size=(samples, 8, 8, 1)).astype("float32")
            targets = draw.integers(0, classes, samples)
            write_shards(tmp_path / "blobs", split, inputs, targets, classes=classes, shards=2)
        return tmp_path / "blobs"

    return write
