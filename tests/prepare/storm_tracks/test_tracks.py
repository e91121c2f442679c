"""Best tracks, the positions between their fixes, and the splits of their times."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_up_storms import HEADER, ROWS, angle, refusal, times, write_tracks

from hpc_train.prepare.storm_tracks.great_circle import along_great_circle, disc, distance, km_to_degrees
from hpc_train.prepare.storm_tracks.splits import parse_splits
from hpc_train.prepare.storm_tracks.tracks import Selection, read_tracks

ANY = Selection(min_wind=0, statuses=(), basins=(), gap=12 * 3600)


@settings(deadline=None, max_examples=60)
@given(st.floats(-90, 90), st.floats(-180, 360), st.floats(0.5, 80), st.booleans())
def test_a_disc_is_all_points_within_the_angle_also_over_poles_and_the_date_line(north, east, radius, turned):
    latitudes, longitudes = np.linspace(-90, 90, 37), np.arange(-180, 180, 5.0) + 180 * turned
    marked = np.zeros((37, 72), bool)
    rows, inside = disc(latitudes, longitudes, north, east, radius)
    marked[rows] = inside
    angles = angle(north, east, *np.meshgrid(latitudes, longitudes, indexing="ij"))
    clear = np.abs(angles - radius) > 1e-5
    np.testing.assert_array_equal(marked[clear], (angles <= radius)[clear])


def test_300_km_are_2_7_degrees_and_a_quarter_of_a_meridian_is_90():
    assert km_to_degrees(300) == pytest.approx(2.69797, abs=1e-4)
    assert distance(0, 10, 90, 77) == pytest.approx(90)
    assert distance(0, -179, 0, 179) == pytest.approx(2)


def test_positions_between_fixes_lie_on_the_great_circle():
    starts, ends = (
        (np.array([0.0, 80, 45, 7]), np.array([179.0, 0, 0, 9])),
        (
            np.array([0.0, 80, 45, 7]),
            np.array([-179.0, 180, 90, 9]),
        ),
    )
    north, east = along_great_circle(starts, ends, np.array([0.25, 0.5, 0.5, 0.7]))
    # Across the date line, over the pole, along the arc that bows to 54.7 degrees (tan = sqrt 2), and standing still.
    assert north == pytest.approx([0, 90, np.degrees(np.arctan(np.sqrt(2))), 7])
    assert east[[0, 2, 3]] == pytest.approx([179.5, 45, 9])


def test_storms_are_interpolated_between_fixes_and_never_beyond_them(tmp_path):
    tracks = read_tracks(write_tracks(tmp_path / "tracks.csv.gz"), ANY)
    asked = times("2018-08-31T23", "2018-09-01", "2018-09-01T03", "2018-09-01T12", "2018-09-01T13", "2018-09-04")
    found = tracks.storms(asked, ANY)
    assert [[storm.track for storm in storms] for storms in found] == [
        [],
        ["W1", "A1"],
        ["W1", "A1"],
        ["W1", "A1"],
        [],
        [],
    ]
    west, atlantic = found[2]
    assert abs(west.longitude) == pytest.approx(180)
    # The middle of the arc from (10, 178) to (10, 182): tan(latitude) = tan(10) / cos(2).
    assert west.latitude == pytest.approx(np.degrees(np.arctan(np.tan(np.radians(10)) / np.cos(np.radians(2)))))
    assert (west.wind, atlantic.wind) == (55, 31.5)
    # 48 hours lie between the last two fixes of A1.
    wide = Selection(0, (), (), 48 * 3600)
    assert [storm.track for storm in tracks.storms(times("2018-09-02"), wide)[0]] == ["A1"]


def test_a_wind_that_stays_the_same_is_not_less_between_its_fixes(tmp_path):
    fixes = [f"T1,,2018-09-01 {hour:02}:00:00,10.0,150.0,TS,34" for hour in (0, 6)]
    asked = times("2018-09-01") + np.arange(0, 6 * 3600 + 1, 60).astype("m8[s]")
    gales = Selection(34, (), (), 12 * 3600)
    tracks = read_tracks(write_tracks(tmp_path / "tracks.csv", fixes), gales)
    assert all(tracks.storms(asked, gales))


@pytest.mark.parametrize(
    ("selection", "wanted"),
    [
        (ANY, {"W1", "A1"}),
        (Selection(34, (), (), 43200), {"W1"}),
        (Selection(0, (), ("NA",), 43200), {"A1"}),
        (Selection(0, (), ("WP", "EP"), 43200), {"W1"}),
        (Selection(0, ("TD", "TS"), (), 43200), {"A1"}),
    ],
)
def test_wind_basin_and_status_choose_the_storms(tmp_path, selection, wanted):
    tracks = read_tracks(write_tracks(tmp_path / "tracks.csv"), selection)
    # Between W1's fixes as typhoon and as extratropical storm: it counts only where both fixes do.
    assert {storm.track for storm in tracks.storms(times("2018-09-01T07"), selection)[0]} == wanted


def test_ibtracs_own_csv_is_read_with_its_line_of_units_and_without_spurs(tmp_path):
    header = "SID,SEASON,BASIN,NAME,ISO_TIME,NATURE,LAT,LON,WMO_WIND,TRACK_TYPE,USA_STATUS,USA_WIND"
    rows = [
        " ,Year, , , , ,degrees_north,degrees_east,kts, , ,kts",
        "2018280N18273,2018,NA,MICHAEL,2018-10-10 12:00:00,TS,29.0,-86.3, ,main,HU,125",
        "2018280N18273,2018,NA,MICHAEL,2018-10-10 15:00:00,TS,29.6,-86.0,120,main, , ",
        "2018280N18273,2018,NA,MICHAEL,2018-10-10 18:00:00,TS,30.2,-85.4,135,main,HU,140",
        "2018280N18273,2018,NA,MICHAEL,2018-10-10 18:00:00,TS,30.1,-85.4,135,spur-merge,HU,140",
        "2018111N00000,2018,NA,NOT_NAMED,2018-10-10 18:00:00,TS,10,-40, ,main,TS, ",
    ]
    path = write_tracks(tmp_path / "ibtracs.ALL.csv", rows, header)
    selection = Selection(34, ("HU", "TS"), ("NA",), 43200)
    tracks = read_tracks(path, selection)
    # The second storm has no wind at all, so none of 34 kt or more is known of it.
    assert [track.track for track in tracks.tracks] == ["2018280N18273"]
    (storm,) = tracks.storms(times("2018-10-10T15"), selection)[0]
    assert (storm.name, storm.latitude, storm.wind) == ("MICHAEL", pytest.approx(29.6), 120)
    assert [track.name for track in read_tracks(path, ANY).tracks] == ["MICHAEL", "2018111N00000"]


@pytest.mark.parametrize(
    ("rows", "header", "words"),
    [
        (
            ROWS,
            HEADER.replace("lat", "y"),
            ["no column of the latitude (lat or latitude), only track_id, basin, time, y"],
        ),
        (ROWS, HEADER.replace("wind", "knots"), ["no column of the wind", "; give --min-wind 0"]),
        (["W1,WP,2018-09-01,95,0,TS,40"], HEADER, ["line 2: '95' is not a latitude"]),
        ([ROWS[0], "W1,WP,yesterday,5,0,TS,40"], HEADER, ["line 3: 'yesterday' is not a time"]),
        (["W1,WP,2018-09-01,5,0,TS,strong"], HEADER, ["line 2: 'strong' is not a wind"]),
        ([], HEADER, ["has no rows"]),
        ([], "", ["no column of the track"]),
    ],
)
def test_tracks_that_cannot_be_understood_are_refused_with_file_and_line(tmp_path, rows, header, words):
    path = write_tracks(tmp_path / "tracks.csv", rows, header)
    message = refusal(read_tracks, path, Selection(34, (), (), 43200))
    assert all(word in message for word in [str(path), *words])
    (tmp_path / "broken.gz").write_bytes(b"\x1f\x8bnot gzip")
    assert "cannot be read as csv" in refusal(read_tracks, tmp_path / "broken.gz", ANY)
    assert "No such file" in refusal(read_tracks, tmp_path / "none.csv", ANY)


def test_dates_mean_whole_years_months_and_days():
    (split,) = parse_splits(["train=2017,2018-02,2018-09-03..2018-10,gfs?.nc"])
    days = times(
        "2017-12-31T23", "2018-01-01", "2018-02-28T21", "2018-03-01", "2018-09-02T23", "2018-09-03", "2018-10-31T21"
    )
    assert split.takes("a.nc", days).tolist() == [True, False, True, False, False, True, True]
    assert split.takes("gfs1.nc", days).all()


@pytest.mark.parametrize(
    ("texts", "words"),
    [
        (["train"], "gives no dates or files"),
        (["Train=2018"], "'Train' cannot name a split"),
        (["train=2018-13"], "there is no date 2018-13"),
        (["train=2018-10..2018-09"], "ends before it begins"),
        (["train=2018-09", "train=2018-10"], "names train twice"),
    ],
)
def test_splits_that_mean_nothing_are_refused(texts, words):
    assert words in refusal(parse_splits, texts)
