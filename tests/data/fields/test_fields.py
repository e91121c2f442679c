"""Maps with a class a pixel: which channels, labels and statistics a trainer takes of them, and what it refuses."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hpc_train.data.catalogue.class_map import IGNORED, ClassMap
from hpc_train.data.catalogue.layout import CAM5_CHANNELS
from hpc_train.data.fields.options import FieldOptions, chosen_channels, is_meridional
from hpc_train.data.reading.reader import Reader
from hpc_train.data.shards.arrays import write_shards
from hpc_train.data.statistics import command as stats
from hpc_train.errors import UserError

SHAPE = (4, 6)


def cam5(folder, samples=3, labels=(0, 1, 2), channels=16, other=None):
    """Files in the CAM5 layout; `other` is the label of every pixel of climate/labels_1."""
    folder.mkdir(parents=True)
    for number in range(samples):
        draw = np.random.default_rng(number)
        with h5py.File(folder / f"data-{number}.h5", "w") as file:
            file["climate/data"] = draw.normal(size=(*SHAPE, channels)).astype("f4")
            file["climate/labels_0"] = draw.choice(labels, SHAPE).astype("f4")
            if other is not None:
                file["climate/labels_1"] = np.full(SHAPE, other, "f4")
    return folder


def refusal(function, *arguments, **options):
    with pytest.raises(UserError) as raised:
        function(*arguments, **options)
    assert "\n" not in str(raised.value)
    return str(raised.value)


@settings(max_examples=50, deadline=None)
@given(st.data())
def test_the_counts_of_mapped_labels_are_those_of_the_classes(data):
    stored = data.draw(st.integers(1, 6))
    of_label = data.draw(st.lists(st.integers(-1, 4), min_size=stored, max_size=stored).filter(lambda m: max(m) >= 0))
    ignore = data.draw(st.sampled_from([None, 0, stored, 255, -100]))
    try:
        given_map = ClassMap.of("a.h5", stored, tuple(of_label), ignore)
    except UserError:
        assert max([c for label, c in enumerate(of_label) if label != ignore], default=-1) < 0
        return
    labels = np.array(data.draw(st.lists(st.integers(0, stored - 1), min_size=1, max_size=40)))
    with_ignored = labels if ignore is None else np.append(labels, [ignore, ignore])
    expected = [IGNORED if label == ignore else of_label[label] for label in with_ignored.tolist()]
    for dtype in ("i2", "f4", "i8"):
        np.testing.assert_array_equal(given_map.apply(with_ignored.astype(dtype)), expected)
    counts = given_map.counts(np.bincount(with_ignored[with_ignored >= 0]))
    expected = [sum(1 for c in expected if c == number) for number in range(given_map.classes)]
    np.testing.assert_array_equal(counts, expected)
    assert given_map.apply(labels).dtype == np.int8


def test_merged_and_swapped_classes_keep_their_names():
    names = ("background", "tc", "ar")
    assert ClassMap.of("a.h5", 3, (0, 2, 1)).names(names) == ("background", "ar", "tc")
    assert ClassMap.of("a.h5", 3, (0, 1, 1)).names(names) == ("background", "tc+ar")
    assert ClassMap.of("a.h5", 3, (0, -1, 2)).names(names) == ("background", "class1", "ar")
    assert ClassMap.of("a.h5", 3, ignore=2).names(names) == ("background", "tc")
    assert ClassMap.of("a.h5", 3).names(()) == ()


def test_a_class_map_of_another_length_than_the_classes_names_the_file(tmp_path):
    inputs, labels = np.zeros((2, *SHAPE, 1), "f4"), np.zeros((2, *SHAPE), "u1")
    write_shards(tmp_path, "train", inputs, labels, classes=3, shards=1)
    message = refusal(FieldOptions(tmp_path, class_map=(0, 1)).catalogue)
    assert message.startswith(str(tmp_path / "train-00000-of-00001.h5"))
    assert "has 3 classes, but --class-map 0 1 has 2 numbers" in message


@pytest.mark.parametrize(
    ("options", "label", "place"),
    [({}, 7, "sample 1"), ({"class_map": (0, 1, 1)}, 7, "sample 1"), ({"ignore_label": 255}, 254, "sample 1")],
)
def test_a_label_outside_the_classes_names_file_sample_and_value(tmp_path, options, label, place):
    folder = cam5(tmp_path / "train")
    with h5py.File(folder / "data-1.h5", "r+") as file:
        file["climate/labels_0"][2, 5] = label
    chosen = FieldOptions(folder, **options)
    reader = Reader(chosen.catalogue(), ignore=chosen.ignore_label)
    message = refusal(reader.read, [0, 1, 2])
    assert message.startswith(f"{folder / 'data-1.h5'}: row 0 ({place} of 'train')")
    assert f"has label {label}.0 at [2, 5], outside the 3 classes" in message


def test_a_value_that_is_not_finite_names_file_sample_and_value(tmp_path):
    folder = cam5(tmp_path / "train")
    with h5py.File(folder / "data-2.h5", "r+") as file:
        file["climate/data"][3, 1, 7] = -np.inf
    message = refusal(Reader(FieldOptions(folder).catalogue()).read, [0, 1, 2])
    assert "data-2.h5: row 0 (sample 2 of 'train') holds NaN or infinity (-inf at [3, 1, 7])" in message


def test_an_ignored_label_may_lie_outside_the_classes(tmp_path):
    folder = cam5(tmp_path / "train", labels=(0, 1, 2, 255))
    chosen = FieldOptions(folder, ignore_label=255)
    stored = chosen.catalogue()
    _, labels = Reader(stored, ignore=255).read([0, 1, 2])
    classes = chosen.classes_of(stored)
    np.testing.assert_array_equal(classes.apply(labels), np.where(labels == 255, -1, labels))
    assert (classes.classes, chosen.ignored, FieldOptions(folder).ignored) == (3, -1, None)


def test_published_layouts_have_three_classes_and_one_label_map(tmp_path):
    fields = np.random.default_rng(0).normal(size=(16, *SHAPE)).astype("f4")
    maps = np.stack([np.full(SHAPE, 1), np.full(SHAPE, 2)]).astype("i4")
    (tmp_path / "paper").mkdir()
    with h5py.File(tmp_path / "paper" / "a.h5", "w") as file:
        file["climate/data"], file["climate/labels"] = fields, maps
    (tmp_path / "climatenet").mkdir()
    with h5py.File(tmp_path / "climatenet" / "a.nc", "w") as file:
        file["LABELS"] = maps[1]
        for name, field in zip(CAM5_CHANNELS, fields, strict=True):
            file[name] = field
    cam5(tmp_path / "cam5", other=2)
    for name, annotation, label in (("paper", 0, 1), ("paper", 1, 2), ("climatenet", 0, 2), ("cam5", 1, 2)):
        catalogue = FieldOptions(tmp_path / name, annotation=annotation).catalogue()
        assert (catalogue.classes, catalogue.target_shape) == (3, SHAPE)
        assert catalogue.channel_names == CAM5_CHANNELS
        # Projects number ClimateNet's classes differently.
        assert catalogue.class_names == (() if name == "climatenet" else ("background", "tc", "ar"))
        inputs, labels = Reader(catalogue).read([0])
        assert inputs.shape[1:] == catalogue.input_shape
        assert (labels == label).all()
    assert "one label map a sample" in refusal(FieldOptions(tmp_path / "climatenet", annotation=1).catalogue)
    assert "label maps 0 to 1, so there is no --annotation 2" in refusal(
        FieldOptions(tmp_path / "paper", annotation=2).catalogue
    )


def test_samples_that_are_no_maps_are_refused_with_their_shapes(tmp_path):
    write_shards(tmp_path, "train", np.zeros((2, 4, 6, 1), "f4"), np.zeros(2, "u1"), classes=3)
    assert "inputs (4, 6, 1) and targets ()" in refusal(FieldOptions(tmp_path).catalogue)


def test_a_channel_that_is_missing_is_named_with_those_there(tmp_path):
    catalogue = FieldOptions(cam5(tmp_path / "train")).catalogue()
    assert chosen_channels(catalogue, ("PSL", "TMQ")) == [7, 0]
    message = refusal(chosen_channels, catalogue, ("TMQ", "IVT"))
    assert "data-0.h5: has no channel 'IVT' for --fields; it has TMQ, U850, V850" in message
    nameless = FieldOptions(cam5(tmp_path / "other", channels=4)).catalogue()
    assert "does not name its channels" in refusal(chosen_channels, nameless, ("TMQ",))


def test_statistics_beside_the_data_are_found_and_their_counts_follow_the_class_map(tmp_path):
    data = tmp_path / "data"
    cam5(data / "train")
    assert "make one with `hpc-train stats --data" in refusal(FieldOptions(data).load_statistics)
    assert FieldOptions(data, normalise="none").load_statistics() is None
    stats.run(stats.Stats(data=data, classes=3))
    found = FieldOptions(data).load_statistics()
    labels = np.concatenate([file["climate/labels_0"][()] for file in map(h5py.File, (data / "train").iterdir())])
    counts = np.bincount(labels.astype(int).ravel())
    np.testing.assert_array_equal(FieldOptions(data).class_counts(found, 3), counts)
    merged = FieldOptions(data, class_map=(0, 1, 1)).class_counts(found, 2)
    np.testing.assert_array_equal(merged, [counts[0], counts[1] + counts[2]])
    np.testing.assert_array_equal(FieldOptions(data, ignore_label=0).class_counts(found, 3), [0, *counts[1:]])
    two = FieldOptions(data, class_map=(0, 1))
    assert f"count {counts[2]} pixels of label 2, outside the 2" in refusal(two.class_counts, found, 2)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"random_crop": (0, 4)}, "--random-crop 0 4"),
        ({"annotation": -1}, "--annotation is -1"),
        ({"fields": ("TMQ", "PSL", "TMQ")}, "--fields names TMQ twice"),
        ({"class_map": (0, -2)}, "--class-map 0 -2"),
        ({"class_map": (-1, -1)}, "--class-map -1 -1"),
        ({"class_map": (0, 1), "classes": 3}, "--class-map is for 2 stored labels, but --classes is 3"),
        ({"meridional": ("V850",)}, "--meridional is for --augment flip"),
    ],
)
def test_options_that_make_no_sense_are_refused(tmp_path, options, expected):
    assert expected in refusal(FieldOptions(tmp_path, **options).check_fields)


def test_winds_to_the_north_and_vorticity_are_known_by_their_names():
    turned = ["V850", "VBOT", "v10", "v", "va", "vas", "V10M", "v@850", "va_500hPa", "10v", "vo", "VGRD", "tauy"]
    turned += ["northward_wind", "10m_v_component_of_wind", "relative_vorticity"]
    kept = ["U850", "TMQ", "PSL", "u10", "vis", "vpd", "VAR1", "Z1000", "vegetation", "PRECT", "10u", "omega", "v_max"]
    assert [name for name in turned + kept if is_meridional(name)] == turned
