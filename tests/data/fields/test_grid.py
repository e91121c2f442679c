"""Where the maps of a data set lie, and of which times they are."""

import h5py
import numpy as np
import pytest

from hpc_train.data.fields.grid import Grid, global_grid, read_grid, read_time
from hpc_train.errors import UserError


def write(path, **datasets):
    with h5py.File(path, "w") as file:
        for name, values in datasets.items():
            file[name.replace("__", "/")] = values
    return str(path)


def test_coordinates_of_a_file_are_taken_as_they_are_written(tmp_path):
    north_first, eastwards = np.array([60.0, 0.0, -60.0]), np.array([-180.0, -90.0, 0.0, 90.0])
    for names in (("latitude", "longitude"), ("lat", "lon"), ("climate__latitude", "climate__longitude")):
        path = write(tmp_path / f"{names[0]}.h5", **dict(zip(names, (north_first, eastwards), strict=True)))
        grid = read_grid(path, 3, 4)
        np.testing.assert_array_equal(grid.latitudes, north_first)
        np.testing.assert_array_equal(grid.longitudes, eastwards)
        assert not grid.assumed


def test_a_file_without_coordinates_is_taken_for_cam5s_grid(tmp_path):
    grid = read_grid(write(tmp_path / "a.h5", data=[1.0]), 768, 1152)
    assert grid.assumed
    # CAM5 at 0.23 x 0.31 degrees: 180 / 767 and 360 / 1152, both poles on the grid.
    assert (grid.latitudes[0], grid.latitudes[-1]) == (-90.0, 90.0)
    assert grid.latitudes[1] - grid.latitudes[0] == pytest.approx(0.2347, abs=1e-4)
    assert grid.longitudes[-1] == 359.6875


@pytest.mark.parametrize(
    ("latitudes", "said"),
    [
        ([0.0, 10.0], "latitude has 2 values for maps of 3 rows"),
        ([0.0, 10.0, 100.0], "latitude runs from 0 to 100"),
        ([0.0, 20.0, 10.0], "latitude runs from 0 to 10"),
        ([0.0, np.nan, 10.0], "latitude runs from 0 to 10"),
    ],
)
def test_coordinates_that_do_not_fit_are_refused_with_file_and_data_set(tmp_path, latitudes, said):
    path = write(tmp_path / "a.h5", latitude=latitudes, longitude=[0.0, 90.0, 180.0, 270.0])
    with pytest.raises(UserError, match=said) as told:
        read_grid(path, 3, 4)
    assert path in str(told.value)


def test_a_region_across_the_seam_lies_in_one_piece_from_west_to_east():
    grid = global_grid(19, 36)
    rows, columns, x, y = grid.part((-25.0, 20.0, 0.0, 30.0))
    np.testing.assert_array_equal(columns, [34, 35, 0, 1, 2])
    np.testing.assert_array_equal(x, [-20.0, -10.0, 0.0, 10.0, 20.0])
    np.testing.assert_array_equal(y, [0.0, 10.0, 20.0, 30.0])
    np.testing.assert_array_equal(rows, [9, 10, 11, 12])


def test_a_whole_grid_comes_with_rising_coordinates_whatever_its_order():
    grid = Grid(np.array([90.0, 0.0, -90.0]), np.array([0.0, 120.0, -120.0]))
    rows, columns, x, y = grid.part()
    np.testing.assert_array_equal(rows, [2, 1, 0])
    np.testing.assert_array_equal(columns, [2, 0, 1])
    np.testing.assert_array_equal(x, [-120.0, 0.0, 120.0])
    np.testing.assert_array_equal(y, [-90.0, 0.0, 90.0])


def test_longitudes_go_on_across_the_date_line_and_a_meridian_that_comes_twice_is_taken_once(tmp_path):
    path = write(tmp_path / "a.h5", lat=[0.0, 10.0], lon=[170.0, 175.0, 180.0, -175.0])
    grid = read_grid(path, 2, 4)
    np.testing.assert_array_equal(grid.longitudes, [170.0, 175.0, 180.0, 185.0])
    path = write(tmp_path / "b.h5", lat=[0.0, 10.0], lon=[180.0, 270.0, 0.0, 90.0])
    np.testing.assert_array_equal(read_grid(path, 2, 4).longitudes, [180.0, 270.0, 360.0, 450.0])
    _, columns, x, _ = Grid(np.array([0.0, 10.0]), np.arange(-180.0, 181.0, 90.0)).part()
    np.testing.assert_array_equal(x, [-180.0, -90.0, 0.0, 90.0])
    assert columns.tolist() == [0, 1, 2, 3]


def test_a_grid_knows_whether_it_goes_around_the_globe_and_is_symmetric():
    whole, north = np.linspace(90, -90, 19), np.linspace(0, 90, 10)
    for longitudes, round_the_globe in (
        (np.arange(0, 360, 10.0), True),
        (np.arange(0, 360, 10.0)[::-1], True),
        (np.arange(175, -185, -10.0), True),
        ((np.arange(1152) * 0.3125).astype("f4").astype("f8"), True),
        (np.arange(0, 361, 10.0), False),
        (np.arange(0, 350, 10.0), False),
        (np.arange(-100, -30, 10.0), False),
    ):
        assert Grid(whole, longitudes).goes_round == round_the_globe
    assert Grid(whole, whole).mirrored
    assert Grid(np.linspace(-89.5, 89.5, 180), whole).mirrored
    assert not Grid(north, whole).mirrored
    assert not Grid(np.arange(-90.0, 90.0), whole).mirrored


def test_a_region_between_the_points_of_the_grid_is_refused():
    with pytest.raises(UserError, match="--region 1 2 3 4 "):
        global_grid(19, 36).part((1.0, 2.0, 3.0, 4.0))


def test_times_follow_the_units_and_calendar_of_the_file(tmp_path):
    pytest.importorskip("cftime")
    path = write(tmp_path / "a.h5", time=[0.0, 59.0])
    assert read_time(path, 0, 2) is None
    with h5py.File(path, "a") as file:
        file["time"].attrs.update(units="days since 2000-01-01", calendar="noleap")
    # Without a leap day, day 59 from 1 January 2000 is 1 March.
    assert str(read_time(path, 1, 2)) == "2000-03-01 00:00:00"
    assert read_time(path, 0, 5) is None
    with h5py.File(path, "a") as file:
        file["time"].attrs["units"] = "fortnights since then"
    with pytest.raises(UserError, match="fortnights since then"):
        read_time(path, 0, 2)
