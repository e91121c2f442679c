"""NetCDF's conventions for numbers: what an independent calculation says, or a line that names the attribute."""

import h5py
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from small_shards import refusal

from hpc_train.data.catalogue.scaling import Scaling
from hpc_train.data.inspect.command import Inspect, inspect
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.data.repack.conversion import Conversion
from hpc_train.data.statistics.command import count
from hpc_train.data.verify.scan import scan

DTYPES = ("i1", "u1", "<i2", ">i2", "<u2", "<i4", ">u4", "<i8", ">u8", "<f4", ">f4", "<f8")
SHAPE = 8, 5


@st.composite
def cases(draw):
    """(stored numbers, attributes, other sign): attributes are in the type of the data, as CF says."""
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    integer = dtype.kind in "ui"
    ends = (np.iinfo(dtype).min, np.iinfo(dtype).max) if integer else (-1000, 1000)
    number = st.integers(*ends).map(dtype.type)
    numbers = np.array(draw(st.lists(number, min_size=40, max_size=40)), dtype).reshape(SHAPE)
    some = st.one_of(number, st.sampled_from(list(numbers.ravel())))
    attributes, turned = {}, False
    if draw(st.booleans()):
        scale = draw(st.sampled_from([0.05, -2.5, 1e-6, 1, 0]))
        attributes["scale_factor"] = draw(st.sampled_from([scale, [scale], np.float32(scale)]))
    if draw(st.booleans()):
        attributes["add_offset"] = draw(st.sampled_from([7.5, [273.15], np.int16(-3)]))
    if integer and draw(st.booleans()):
        turned = True
        text = "true" if dtype.kind == "i" else "false"
        attributes["_Unsigned"] = draw(st.sampled_from([text, text.title(), text.encode(), [text.encode()]]))
    if draw(st.booleans()):
        attributes["_FillValue"] = draw(some)
    if draw(st.booleans()):
        attributes["missing_value"] = np.array(draw(st.lists(some, min_size=1, max_size=3)), dtype)
    if draw(st.booleans()):
        low, high = sorted(meant(np.array([draw(some), draw(some)], dtype), turned))
        pair = np.array([low, high]).astype(meant(numbers, turned).dtype).view(dtype)
        if draw(st.booleans()):
            attributes["valid_range"] = pair
        else:
            attributes["valid_min"], attributes["valid_max"] = pair[:1], pair[1]
    return numbers, attributes, turned


def meant(numbers, turned):
    """Numbers with the other sign, if they are meant to have it."""
    return numbers.view(numbers.dtype.str.translate(str.maketrans("iu", "ui"))) if turned else numbers


def expected(stored, attributes, turned):
    """(real values, which are missing) by a calculation of NumPy alone."""
    numbers = meant(stored, turned)
    missing = np.zeros(SHAPE, bool)
    for name in ("_FillValue", "missing_value"):
        if name in attributes:
            values = meant(np.ravel(np.array(attributes[name], stored.dtype)), turned)
            missing |= (numbers[..., None] == values).any(axis=-1)
    ends = attributes.get("valid_range")
    ends = [attributes["valid_min"][0], attributes["valid_max"]] if "valid_min" in attributes else ends
    if ends is not None:
        low, high = meant(np.array(ends, stored.dtype), turned)
        missing |= (numbers < low) | (numbers > high)
    scale, offset = (float(np.ravel(attributes.get(n, d))[0]) for n, d in (("scale_factor", 1), ("add_offset", 0)))
    return numbers.astype("f8") * scale + offset, missing


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("conventions")


def write(path, stored, attributes, chunked=None):
    """The file at `path` with the same data set as x and as y, which is no label map where there are two targets."""
    with h5py.File(path, "w") as file:
        for name in "xy":
            how = {"chunks": chunked, "compression": "gzip"} if chunked else {}
            file.create_dataset(name, data=stored, **how).attrs.update(attributes)
    return DataOptions(path, inputs=("in=x",), targets=("one=y", "two=y"))


@settings(max_examples=150, deadline=None)
@given(case=cases(), chunked=st.sampled_from([None, (3, 2)]))
def test_values_are_those_of_an_independent_calculation(folder, case, chunked):
    stored, attributes, turned = case
    values, missing = expected(*case)
    catalogue = write(folder / "a.nc", stored, attributes, chunked).catalogue("train")
    arrays = Reader(catalogue, check=False).read(range(8))
    for part, array in zip(catalogue.parts, arrays, strict=True):
        assert array.dtype == meant(stored, turned).dtype.newbyteorder("=")
        np.testing.assert_array_equal(array, meant(stored, turned))
        np.testing.assert_array_equal(Scaling.of(catalogue, part).exact(array), values)
        absent = part.absent(array)
        np.testing.assert_array_equal(np.zeros(SHAPE, bool) if absent is None else absent, missing)
    conversion = Conversion(catalogue)
    if missing.any():
        row = np.flatnonzero(missing.any(axis=1))[0]
        line = refusal(Reader(catalogue).read, range(8))
        assert line == refusal(conversion.read, 0, 8)
        number = meant(stored, turned)[missing][0]
        assert line.startswith(
            f"{folder}/a.nc: row {row} (sample {row} of 'train') holds the missing value {number} of"
        )
        assert refusal(count, catalogue, 0, 8).startswith(f"{folder}/a.nc: row {row} ")
    else:
        packed = "add_offset" in attributes or np.ravel(attributes.get("scale_factor", 1))[0] != 1
        for array in conversion.read(0, 8):
            assert array.dtype == ("f4" if packed else array.dtype)
            np.testing.assert_array_equal(array, values.astype("f4") if packed else meant(stored, turned))
    statistics = count(catalogue, 0, 8, skip_nan=True)
    assert statistics.not_finite.tolist() == [missing.sum()]
    for one in (statistics, *statistics.others.values()):
        some, good = one.count > 0, values[~missing]
        found = [one.count.sum(), *([np.nan] * 3)]
        if some.any():
            found[1:] = np.average(one.mean[some], weights=one.count[some]), np.nanmin(one.min), np.nanmax(one.max)
        wanted = [good.size, *((good.mean(), good.min(), good.max()) if good.size else [np.nan] * 3)]
        np.testing.assert_allclose(found, wanted, rtol=1e-9, atol=1e-9 * np.abs(values).max())


def test_values_are_those_of_netcdf4(folder):
    netcdf = pytest.importorskip("netCDF4")
    draw = np.random.default_rng(0)
    stored = draw.integers(-128, 128, SHAPE).astype("i1")
    path, kept = folder / "goes.nc", stored.view("u1")
    with netcdf.Dataset(path, "w") as file:
        for name, size in zip(("time", "x"), SHAPE, strict=True):
            file.createDimension(name, size)
        rad = file.createVariable("rad", "i1", ("time", "x"), fill_value=-1)
        rad.set_auto_maskandscale(False)
        rad.setncatts({"_Unsigned": "true", "scale_factor": np.float32(0.5), "add_offset": np.float32(-20)})
        rad.setncatts({"valid_range": np.array([0, -6], "i1"), "missing_value": np.array([3, -2], "i1")})
        rad[:] = stored
    with netcdf.Dataset(path) as file:
        real = file["rad"][:]
    catalogue = DataOptions(path, inputs=("rad",)).catalogue("train")
    (array,) = Reader(catalogue, check=False).read(range(8))
    np.testing.assert_array_equal(array, kept)
    absent = catalogue.inputs[0].absent(array)
    assert absent.any()
    np.testing.assert_array_equal(absent, np.ma.getmaskarray(real))
    np.testing.assert_array_equal(Scaling.of(catalogue, catalogue.inputs[0]).apply(array)[~absent], real.compressed())


# Attributes that are well defined, though not as they should be: which of the numbers 0 to 7 are missing.
ODD = {
    "a number that the type cannot hold": ("u1", {"missing_value": 1e20}, []),
    "a double that is a whole number": ("i2", {"missing_value": 3.0, "_FillValue": np.float64(5)}, [3, 5]),
    "NaN among whole numbers": ("i2", {"missing_value": [np.nan, 2]}, [2]),
    "NaN": ("f4", {"_FillValue": np.nan}, []),
    "no limit": ("f4", {"valid_range": [-np.inf, np.inf]}, []),
    "limits beyond the type": ("u1", {"valid_range": np.array([-5, 300], "i2")}, []),
    "limits between numbers": ("i4", {"valid_min": 1.5, "valid_max": 4.5}, [0, 1, 5, 6, 7]),
    "nothing is valid": ("u1", {"valid_min": np.int16(300)}, list(range(8))),
    "two that agree": ("i2", {"valid_range": np.array([2, 9], "i2"), "valid_max": np.int16(9)}, [0, 1]),
    "a double near a float": ("f4", {"missing_value": np.float64(np.float32(3) * (1 + 1e-12))}, [3]),
    "the sign of floats": ("f4", {"_Unsigned": "true", "_FillValue": np.float32(6)}, [6]),
}


@pytest.mark.parametrize("case", ODD)
def test_odd_attributes_that_are_well_defined_are_kept(tmp_path, case):
    dtype, attributes, missing = ODD[case]
    catalogue = write(tmp_path / "a.nc", np.arange(8, dtype=dtype), attributes).catalogue("train")
    absent = catalogue.inputs[0].absent(np.arange(8, dtype=dtype))
    assert ([] if absent is None else np.flatnonzero(absent).tolist()) == missing


REFUSED = {
    "scale_factor": [[0.5, 2.0], np.nan, np.inf, "0.05", "", h5py.Empty("f4"), 1e300, 1e-300, np.array([]), True, 2j],
    "add_offset": [[1, 2, 3], -np.inf, np.nan, "warm\nair", 1e39, h5py.Empty("S1"), [True, False]],
    "_Unsigned": ["yes", 1, "", ["true", "false"], h5py.Empty("S1")],
    "_FillValue": ["none", [1, 2], np.array([], "i2"), 1j, 0.75],
    "missing_value": ["", ["a", "b"], h5py.Empty("f4"), [-999, 2.5]],
    "valid_range": [[1, 2, 3], 5, "0, 100", np.array([3, 1], "i2"), [0.0, np.nan], [0.0, 100.0], h5py.Empty("f4")],
    "valid_min": [np.array([0, 1], "i2"), "low", np.nan, 2.5, [[1, 2]]],
    "valid_max": [h5py.Empty("i2"), b"\xff\xfe", np.nan],
}


@pytest.mark.parametrize(
    ("name", "number"), [(name, n) for name, values in REFUSED.items() for n in range(len(values))]
)
def test_what_is_not_well_defined_is_refused_where_it_is_asked_for(tmp_path, name, number):
    path, stored = tmp_path / "a.nc", np.arange(8, dtype="i2")
    # Of a packed data set a limit or a missing value in doubles may be meant either way.
    packed = {} if name in ("scale_factor", "add_offset") else {"scale_factor": 0.5}
    options = write(path, stored, packed)
    with h5py.File(path, "r+") as file:
        file["y"].attrs[name] = REFUSED[name][number]
        file["z"] = stored
    line = refusal(options.catalogue, "train")
    assert line.startswith(f"{path}: y: attribute {name} is ")
    assert line.endswith(f"; correct it, or delete it (h5py: del file['/y'].attrs['{name}'])")
    assert "\n" not in line
    assert len(line.removeprefix(str(path))) < 250
    # Beside what is asked for, it stops nothing.
    assert DataOptions(path, inputs=("x",), targets=("z",)).catalogue("train").samples == 8
    assert "y" in [entry["name"] for entry in inspect(Inspect(path), "train")["datasets"]]
    with h5py.File(path, "r+") as file:
        del file["/y"].attrs[name]
    assert options.catalogue("train").samples == 8


def test_labels_keep_their_numbers_and_are_not_packed(tmp_path):
    labels = np.array([0, 1, 2, 0, -1, 1, 2, 2], "i1")
    path, attributes = tmp_path / "a.nc", {"_FillValue": np.int8(0), "_Unsigned": "true"}
    write(path, labels, attributes)
    options = DataOptions(path, inputs=("x",), targets=("y",), classes=3)
    with h5py.File(path, "r+") as file:
        del file["x"].attrs["_FillValue"]
    catalogue = options.catalogue("train")
    np.testing.assert_array_equal(Reader(catalogue, ignore=255).read(range(8))[1], labels.view("u1"))
    assert count(catalogue, 0, 8, ignore=255).class_counts.tolist() == [2, 2, 3]
    with h5py.File(path, "r+") as file:
        file["y"].attrs["scale_factor"] = 2.0
    assert "y holds labels, but has the scale_factor" in refusal(options.catalogue, "train")


def test_a_fill_value_that_hdf5_has_alone_is_missing_in_packed_data_and_where_it_is_no_measurement(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("packed", (4, 3), "i2", fillvalue=-7).attrs["scale_factor"] = 0.5
        for name, fill in (("floats", 9.969209968386869e36), ("ordinary", 1.5), ("zeros", 0)):
            file.create_dataset(name, (4, 3), "f4", fillvalue=fill)
        file.create_dataset("chunked", (4, 3), "f4", chunks=(2, 3), fillvalue=np.nan)
    for name, what in (("packed", "missing value -7 of packed"), ("floats", "missing value 9.96"), ("chunked", "NaN")):
        assert what in refusal(Reader(DataOptions(path, inputs=(name,)).catalogue("train")).read, range(4))
    for name in ("ordinary", "zeros"):
        catalogue = DataOptions(path, inputs=(name,)).catalogue("train")
        assert (Reader(catalogue).read(range(4))[0] == (1.5 if name == "ordinary" else 0)).all()


def test_missing_values_of_stacked_data_sets_and_of_sequences_are_their_own(tmp_path):
    path = tmp_path / "a.h5"
    with h5py.File(path, "w") as file:
        for name, fill in (("u", 3), ("v", 9)):
            file[name] = np.arange(8, dtype="i2").reshape(4, 2)
            file[name].attrs["_FillValue"] = np.int16(fill)
        file["steps"], file["lengths"] = np.array([1, 2, 3, 4, 5], "i2"), np.array([2, 3])
        file["steps"].attrs["_FillValue"] = np.int16(0)
    reader = Reader(DataOptions(path, inputs=("u", "v")).catalogue("train"))
    assert "row 1 (sample 1 of 'train') holds the missing value 3 of u" in refusal(reader.read, range(4))
    # The padding of a sequence is no missing value.
    catalogue = DataOptions(path, inputs=("steps",), lengths=("lengths",)).catalogue("train")
    assert Reader(catalogue).read([0, 1])[0].tolist() == [[1, 2, 0], [3, 4, 5]]
    with h5py.File(path, "r+") as file:
        file["steps"].attrs["_FillValue"] = np.int16(5)
    catalogue = DataOptions(path, inputs=("steps",), lengths=("lengths",)).catalogue("train")
    assert "row 1 (sample 1 of 'train') holds the missing value 5 of steps" in refusal(Reader(catalogue).read, [0, 1])


@pytest.mark.parametrize("chunked", [False, True])
def test_booleans_are_read_as_0_and_1(tmp_path, chunked):
    mask = np.random.default_rng(0).random((8, 3, 4)) > 0.5
    write(tmp_path / "a.h5", mask, {}, chunked=(3, 2, 4) if chunked else None)
    options = DataOptions(tmp_path / "a.h5", inputs=("x",), targets=("y",), classes=2)
    catalogue = options.catalogue("train")
    for array in (*Reader(catalogue).read(range(8)), *Conversion(catalogue).read(0, 8)):
        assert array.dtype == np.uint8
        np.testing.assert_array_equal(array, mask)
    assert count(catalogue, 0, 8).class_counts.tolist() == [(~mask).sum(), mask.sum()]
    assert not scan(str(tmp_path / "a.h5"), options.layout_of_files(), "train", 2).problems
