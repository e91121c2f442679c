"""What maps show (the globe, a region, a picture): known from the files, by an option, or recorded."""

import h5py
import numpy as np
import pytest

from hpc_train.data.catalogue import Catalogue
from hpc_train.data.fields.geometry import geometry_of, grid_of, grid_of_record, recorded
from hpc_train.data.fields.grid import Grid
from hpc_train.data.fields.options import FieldOptions
from hpc_train.data.inspect import command as inspect
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.data.repack import command as shard
from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError

SHAPE, SEED = (8, 12), 5
ROUND = {"latitude": np.linspace(70, -70, 8), "longitude": np.arange(12) * 30.0}
PART = {"latitude": np.linspace(40, 54, 8), "longitude": np.arange(12.0)}


def shards(folder, samples=2, channels=1, **more):
    draw = np.random.default_rng(0)
    inputs = draw.integers(0, 256, (samples, *SHAPE, channels)).astype("u1")
    labels = draw.integers(0, 2, (samples, *SHAPE)).astype("u1")
    write_shards(folder, "train", inputs, labels, shards=1, **({"classes": 2} | more))
    return inputs, labels


@pytest.mark.parametrize(
    ("held", "asked", "expected"),
    [
        ({"coordinates": ROUND}, None, "globe"),
        ({"coordinates": PART}, None, "region"),
        ({"coordinates": PART}, "picture", "picture"),
        ({"coordinates": ROUND}, "region", "region"),
        ({"geometry": "picture"}, None, "picture"),
        ({"geometry": "picture"}, "globe", "globe"),
        ({"geometry": "region"}, None, "region"),
        ({"channels": 2, "channel_names": ("u10", "v10")}, None, "globe"),
        ({"channels": 2, "channel_names": ("TMQ", "PSL")}, None, "globe"),
        ({"channels": 2, "channel_names": ("red", "blue")}, None, ""),
        ({"classes": 3, "class_names": ("background", "tc", "ar")}, None, "globe"),
        ({"classes": 3, "class_names": ("glaze", "crack", "hole")}, None, ""),
        ({}, None, ""),
    ],
)
def test_the_geometry_is_that_of_the_option_the_shards_the_coordinates_or_the_names(tmp_path, held, asked, expected):
    shards(tmp_path, **held)
    catalogue = Catalogue.open(tmp_path)
    assert geometry_of(catalogue, asked) == expected
    grid = grid_of(catalogue, asked)
    # Only a map has degrees.
    degrees = expected == "globe" or ("coordinates" in held and expected != "picture")
    assert grid.numbered is not degrees


def test_published_files_are_of_the_globe_and_files_with_curved_coordinates_of_a_region(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["climate/data"], file["climate/labels_0"] = np.zeros((*SHAPE, 16), "f4"), np.zeros(SHAPE, "f4")
    assert grid_of(FieldOptions(tmp_path / "a.h5").catalogue()).geometry == "globe"
    for north in (1, -1):
        with h5py.File(tmp_path / "wrf.nc", "w") as file:
            file["T2"], file["y"] = np.zeros((1, *SHAPE), "f4"), np.zeros((1, *SHAPE), "u1")
            file["XLAT"] = (np.arange(8.0)[:, None] * north + np.zeros(SHAPE))[None]
        options = DataOptions(tmp_path / "wrf.nc", inputs=("T2",), targets=("y",))
        grid = grid_of(options.catalogue(None))
        assert (grid.geometry, grid.numbered, grid.upwards) == ("region", True, north > 0)


def test_a_globe_that_the_longitudes_contradict_is_refused(tmp_path):
    shards(tmp_path, coordinates=PART)
    with pytest.raises(UserError, match=r"longitudes, 0 to 11, do not go around the globe.*--geometry globe out"):
        grid_of(Catalogue.open(tmp_path), "globe")


def lefts_and_flips(folder, **options):
    chosen = FieldOptions(folder, **options)
    return chosen.transform(chosen.catalogue()).draw(SEED, 0, np.arange(400)).T


def test_parts_cross_the_edge_of_a_globe_only(tmp_path):
    shards(tmp_path / "plain")
    shards(tmp_path / "globe", coordinates=ROUND)
    for folder, geometry, most in (
        ("plain", None, 12 - 5),
        ("plain", "picture", 12 - 5),
        ("plain", "globe", 11),
        ("globe", None, 11),
        ("globe", "region", 12 - 5),
    ):
        _, left, _ = lefts_and_flips(tmp_path / folder, random_crop=(4, 5), geometry=geometry)
        assert (left.min(), left.max()) == (0, most)


def test_pictures_are_turned_upside_down_and_mirrored_with_their_labels(tmp_path):
    inputs, labels = shards(tmp_path, geometry="picture")
    chosen = FieldOptions(tmp_path, augment=("flip", "mirror"))
    catalogue = chosen.catalogue()
    transform = chosen.transform(catalogue)
    drawn = transform.draw(SEED, 0, np.arange(400))
    counts = np.bincount(drawn[:, 2], minlength=4)
    # A quarter each, within six standard deviations.
    assert np.abs(counts - 100).max() < 6 * np.sqrt(75)
    assert not drawn[:, :2].any()
    one = [np.repeat(part[:1], 4, axis=0) for part in Reader(catalogue).read([0, 1])]
    x, y = transform.training(*one, np.array([[0, 0, kind] for kind in range(4)], "i4"))
    for kind in range(4):
        way = slice(None, None, -1 if kind % 2 else 1), slice(None, None, -1 if kind > 1 else 1)
        np.testing.assert_array_equal(x[kind], inputs[0][way])
        np.testing.assert_array_equal(y[kind], labels[0][way])
    assert transform.describe() == [
        "training: turned upside down half of the time; left and right swapped half of the time"
    ]


def test_mirroring_leaves_the_other_random_numbers_as_they_are(tmp_path):
    shards(tmp_path, geometry="picture")
    without = lefts_and_flips(tmp_path, augment=("flip",), random_crop=(4, 5))
    both = lefts_and_flips(tmp_path, augment=("flip", "mirror"), random_crop=(4, 5))
    np.testing.assert_array_equal(both[:2], without[:2])
    np.testing.assert_array_equal(both[2] % 2, without[2])


@pytest.mark.parametrize(
    ("held", "kind", "said"),
    [
        ({"geometry": "picture"}, "roll", "holds a picture, and so takes no --augment roll"),
        ({}, "roll", "does not say where its maps lie.* --geometry globe.*--geometry picture"),
        ({}, "mirror", "does not say where its maps lie.*no --augment mirror"),
        ({"coordinates": ROUND}, "mirror", "east and west cannot be swapped"),
        ({}, "flip", "does not name its channels"),
        ({"geometry": "region"}, "flip", "does not say where its maps lie.*no --augment flip"),
    ],
)
def test_what_the_geometry_does_not_allow_is_refused_with_the_option_that_helps(tmp_path, held, kind, said):
    shards(tmp_path, **held)
    chosen = FieldOptions(tmp_path, augment=(kind,))
    with pytest.raises(UserError, match=said) as raised:
        chosen.transform(chosen.catalogue())
    assert raised.value.every_rank


def test_repacked_shards_keep_the_geometry_and_take_another_one_and_inspect_shows_it(tmp_path, capsys):
    shards(tmp_path / "a", geometry="picture")
    shard.run(shard.Shard(data=tmp_path / "a", output=tmp_path / "b", shards=1))
    shard.run(shard.Shard(data=tmp_path / "a", output=tmp_path / "c", shards=1, geometry="globe"))
    for folder, expected in (("a", "picture"), ("b", "picture"), ("c", "globe")):
        with h5py.File(tmp_path / folder / "train-00000-of-00001.h5") as file:
            assert file.attrs["geometry"] in (expected, expected.encode())
        inspect.run(inspect.Inspect(data=tmp_path / folder))
        assert f"  geometry: {expected}\n" in capsys.readouterr().out


@pytest.mark.parametrize("latitudes", [np.linspace(90, -90, 8), np.array([60, 50, 30, 20, 10, 5, 0, -2.5])])
def test_recorded_grids_come_back_for_maps_of_the_same_size_and_keep_their_direction(latitudes):
    import json

    grid = Grid(latitudes, np.arange(12) * 30.0)
    facts = json.loads(json.dumps(recorded(grid)))
    again = grid_of_record(facts, *SHAPE)
    np.testing.assert_allclose(again.latitudes, latitudes, atol=1e-12)
    np.testing.assert_allclose(again.longitudes, grid.longitudes, atol=1e-12)
    larger = grid_of_record(facts, 19, 36)
    assert (larger.latitudes[0], larger.latitudes[-1], larger.assumed) == (90, -90, True)
    assert grid_of_record({"geometry": "picture"}, *SHAPE).numbered
    assert grid_of_record(facts, *SHAPE, "picture").numbered
    assert grid_of_record({}, *SHAPE) is None


def test_class_names_come_from_the_option_and_give_the_number_of_classes(tmp_path):
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["x"], file["y"] = np.zeros((3, *SHAPE, 1), "f4"), np.ones((3, *SHAPE), "u1")
    names = ("glaze", "crack", "hole")
    named = {"inputs": ("x",), "targets": ("y",), "class_names": names}
    for more in ({}, {"ignore_label": 255}, {"class_map": (0, 1, 1)}):
        catalogue = FieldOptions(tmp_path / "a.h5", **named, **more).catalogue(None)
        assert (catalogue.classes, catalogue.class_names) == (3, names)
    options = FieldOptions(tmp_path / "a.h5", **named, class_map=(0, 1, 1))
    assert options.classes_of(options.catalogue(None)).delivered(options.catalogue(None)).class_names == (
        "glaze",
        "crack+hole",
    )
    with pytest.raises(UserError, match="has 2 classes, but --class-names has 3 names"):
        FieldOptions(tmp_path / "a.h5", **named, classes=2).catalogue(None)
    with pytest.raises(UserError, match="names a class twice"):
        FieldOptions(tmp_path / "a.h5", **{**named, "class_names": ("a", "a")}).catalogue(None)
    shard.run(shard.Shard(data=tmp_path / "a.h5", **named, output=tmp_path / "shards", shards=1))
    assert Catalogue.open(tmp_path / "shards").class_names == names
