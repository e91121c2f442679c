"""What is refused before training: absent statistics, labels of no class; and held-out data with their own names."""

from dataclasses import dataclass, replace
from pathlib import Path

import h5py
import numpy as np
import pytest
from small_shards import refusal

from hpc_train import climate, fit, parallel, resnet
from hpc_train.data.options import DataOptions, ReadOptions, ScaleOptions
from hpc_train.data.statistics.command import Stats
from hpc_train.data.statistics.command import run as stats
from hpc_train.parallel.mpi import Alone
from hpc_train.parallel.world import World
from hpc_train.training import feed
from hpc_train.training.options import HeldOutOptions, check

pytest.importorskip("tensorflow")

ROWS = {"train": 12, "test": 5}


@dataclass(frozen=True)
class Options(HeldOutOptions, ReadOptions, ScaleOptions, DataOptions):
    """What a trainer reads by."""

    batch_size: int = 2
    seed: int = 0


@pytest.fixture
def arrays(tmp_path, monkeypatch):
    """The arrays of a file with x_train, y_train, x_test and so on; one process, without Horovod."""
    monkeypatch.setattr(parallel, "Ranks", lambda world: Alone())
    draw, made = np.random.default_rng(0), {}
    for split, rows in ROWS.items():
        made |= {
            f"x_{split}": draw.normal(size=(rows, 4)).astype("f4"),
            f"y_{split}": draw.integers(0, 3, rows),
            f"w_{split}": draw.random(rows).astype("f4"),
            f"value_{split}": draw.normal(size=rows).astype("f4"),
            f"steps_{split}": np.arange(2 * rows, dtype="i2"),
            f"counts_{split}": np.full(rows, 2),
        }
    with h5py.File(tmp_path / "a.h5", "w") as file:
        for name, array in made.items():
            file[name] = array
    return made


def held_out(options):
    """The arrays of the held-out data that a trainer reads."""
    opened = feed.open_feed(options, World())
    return opened._readers[1].read(range(opened.held_out.samples))


@pytest.mark.parametrize("where", ["the same file", "another file"])
def test_held_out_data_may_have_names_of_their_own(tmp_path, arrays, where):
    other = None if where == "the same file" else Path(tmp_path / "a.h5").rename(tmp_path / "b.h5")
    if other:
        with h5py.File(tmp_path / "a.h5", "w") as file:
            for name in arrays:
                if name.endswith("train"):
                    file[name] = arrays[name]
    options = Options(tmp_path / "a.h5", inputs=("x_train",), targets=("y_train",), classes=3, test_data=other)
    named = replace(options, test_inputs=("x_test",), test_targets=("y_test",))
    for name, array in zip(("x_test", "y_test"), held_out(named), strict=True):
        np.testing.assert_array_equal(array, arrays[name])
    weighted = replace(named, sample_weights="w_train", test_sample_weights="w_test")
    np.testing.assert_array_equal(held_out(weighted)[2], arrays["w_test"])
    ragged = replace(named, inputs=("steps_train",), lengths=("counts_train",))
    ragged = replace(ragged, test_inputs=("steps_test",), test_lengths=("counts_test",))
    np.testing.assert_array_equal(held_out(ragged)[0], arrays["steps_test"].reshape(5, 2))
    stacked = replace(named, inputs=("w_train", "value_train"), test_inputs=("w_test", "value_test"))
    np.testing.assert_array_equal(held_out(stacked)[0][:, 1], arrays["value_test"])
    assert "--test-inputs and --test-targets" in refusal(feed.open_feed, replace(options, test_data=None), World())


def test_names_of_held_out_data_that_mean_nothing_are_refused(tmp_path):
    options = fit.Options(build="mine.py:build", data=tmp_path)
    assert "--test-inputs is for data sets that --inputs names" in refusal(check, replace(options, test_inputs=("x",)))
    alone = replace(options, inputs=("x",), test_targets=("y",))
    assert "--test-targets needs --test-inputs, or --test-data" in refusal(check, alone)


@pytest.mark.parametrize("split", ROWS)
def test_labels_of_no_class_and_targets_that_are_not_finite_are_named_before_training(tmp_path, arrays, split):
    path = tmp_path / "a.h5"
    options = Options(path, inputs=("x_train",), test_inputs=("x_test",))
    labels = replace(options, targets=("y_train",), test_targets=("y_test",), classes=3)
    values = replace(options, targets=("value_train",), test_targets=("value_test",))
    for chosen in (labels, values):
        feed.open_feed(chosen, World())
    with h5py.File(path, "r+") as file:
        file[f"y_{split}"][3], file[f"value_{split}"][2] = 7, np.nan
    assert f"{path}: row 3 (sample 3 of " in refusal(feed.open_feed, labels, World())
    assert "has label 7, outside the 3 classes" in refusal(feed.open_feed, labels, World())
    assert "holds NaN or infinity (nan) in its target" in refusal(feed.open_feed, values, World())


def test_what_lacks_statistics_is_refused_before_any_file_is_looked_into(tmp_path, arrays):
    model = tmp_path / "mine.py"
    model.write_text("def build():\n    pass\n")
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "data-0.h5").write_bytes(b"no file that could be opened")
    maps = {"data": tmp_path, "normalise": "none"}
    line = "--class-weights: the pixels of each class are not known; count them with `hpc-train stats`"
    assert refusal(climate.task, climate.Options(**maps, class_weights="inverse")).startswith(line)
    assert "has no statistics.h5 or stats.h5" in refusal(climate.task, climate.Options(data=tmp_path))
    climate.task(climate.Options(**maps, class_weights="none"))
    named = {"build": f"{model}:build", "data": tmp_path, "normalise": ("inputs",)}
    assert "--normalise needs the statistics of the data" in refusal(fit.task, fit.Options(**named))
    absent = tmp_path / "none.h5"
    assert f"{absent}: statistics cannot be read" in refusal(resnet.task, resnet.Options(tmp_path, statistics=absent))
    # Statistics of data without labels have no pixels of classes.
    stats(Stats(tmp_path / "a.h5", inputs=("x_train",), output=tmp_path))
    assert refusal(climate.task, climate.Options(**maps, class_weights="inverse")).startswith(line)
    fit.task(fit.Options(**named))


def test_copies_of_the_data_are_normalised_by_the_statistics_beside_the_data(tmp_path, arrays, monkeypatch):
    monkeypatch.setattr(feed, "communicator", Alone)
    options = fit.Options(build="mine.py:build", data=tmp_path / "a.h5", inputs=("x_train",), normalise=("inputs",))
    stats(Stats(tmp_path / "a.h5", inputs=("x_train",), output=tmp_path))
    moved = feed.staged(replace(options, stage=str(tmp_path / "local"), test_inputs=("x_test",)))
    assert moved.statistics == tmp_path / "statistics.h5"
    assert moved.data != options.data
    scaling = feed.open_feed(moved, World()).scalings["input"]
    np.testing.assert_allclose(scaling.mean, arrays["x_train"].mean(), rtol=1e-6)
