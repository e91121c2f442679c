"""Targets that the suite's classifiers cannot take: one line that says what to do."""

import h5py
import numpy as np
import pytest

from hpc_train import mnist, resnet
from hpc_train.errors import UserError


@pytest.fixture
def data(tmp_path):
    (tmp_path / "train").mkdir()
    with h5py.File(tmp_path / "train" / "a.h5", "w") as file:
        file["x"], file["k"] = np.zeros((6, 32, 32, 1), "f4"), np.arange(6) % 3
        file["y"], file["one_hot"] = np.zeros(6, "f4"), np.eye(6, dtype="f4")
        file["map"] = np.zeros((6, 32, 32), "u1")
    return tmp_path


@pytest.mark.parametrize(
    ("targets", "classes", "said"),
    [
        ((), None, "no targets are named; name the labels with --targets"),
        (("k",), None, "the number of classes is not known; give it with --classes"),
        (("y",), None, "the targets are float32; for numbers train a network of your own with hpc_train.fit"),
        (("one_hot",), 6, r"have shape \(6,\); store class numbers \(of one-hot labels, their argmax\)"),
        (("map",), 3, r"have shape \(32, 32\); give other targets"),
    ],
)
@pytest.mark.parametrize("trainer", [mnist, resnet])
def test_other_targets_than_one_class_number_are_refused(data, trainer, targets, classes, said):
    options = trainer.Options(data=data, inputs=("x",), targets=targets, classes=classes)
    with pytest.raises(UserError, match=f"a.h5: the .* networks need one class number for each sample, and .*{said}"):
        trainer.task(options).model(options.catalogue("train"))


@pytest.mark.parametrize("dtype", ["i4", "u2", "f8", "u1"])
def test_images_of_any_numbers_are_taken(data, dtype):
    with h5py.File(data / "train" / "a.h5", "a") as file:
        file["i"] = np.arange(6 * 32 * 32).reshape(6, 32, 32, 1).astype(dtype)
        images = file["i"][()]
    options = mnist.Options(data=data, inputs=("i",), targets=("k",), classes=3)
    assert mnist.task(options).model(options.catalogue("train"))(images).shape == (6, 3)
