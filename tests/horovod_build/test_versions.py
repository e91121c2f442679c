"""The table of `make test-versions`: which rows are chosen, and what is read from the programs' output."""

import subprocess
import sys

import pytest
import versions
from launch import REPOSITORY


def test_the_oldest_tensorflow_with_the_oldest_keras_is_the_first_row():
    assert versions.ROWS[0].packages[:2] == ["tensorflow-cpu==2.16.*", "keras==3.12.*"]


def test_a_version_takes_all_its_rows_and_a_name_one():
    assert [row.name for row in versions.choose(["2.16"])] == ["2.16-keras3.12", "2.16"]
    assert [row.name for row in versions.choose(["2.21-openmpi5", "2.21-mpich5"])] == ["2.21-mpich5", "2.21-openmpi5"]
    assert versions.choose([]) == list(versions.ROWS)


def test_every_tensorflow_from_the_oldest_to_the_newest_has_a_row():
    assert {row.name.split("-")[0] for row in versions.ROWS} == {f"2.{minor}" for minor in range(16, 22)}


def test_an_unknown_row_is_one_line_that_names_the_rows():
    command = [sys.executable, REPOSITORY / "tests" / "versions.py", "2.16", "2.15"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == 1
    assert ended.stderr.startswith("error: no row 2.15: the rows are 2.16-keras3.12, 2.16, ")
    assert ended.stderr.count("\n") == 1


@pytest.mark.parametrize(
    ("output", "count"),
    [
        ("....\n46 passed in 126.04s (0:02:06)\n", "46 passed"),
        ("== short test summary info ==\n1 failed, 45 passed, 2 skipped in 80.10s\n", "1 failed, 45 passed, 2 skipped"),
        ("ImportError while loading conftest\n", "no tests ran"),
    ],
)
def test_the_count_of_tests_is_pytests_own(output, count):
    assert versions.summary(output) == count


def test_a_missing_wheel_of_tensorflow_is_told_from_another_missing_package():
    pips = "ERROR: Could not find a version\nERROR: No matching distribution found for {}\n"
    found = versions.without_wheel(pips.format("tensorflow-cpu==2.19.*"))
    assert found == "no wheel of tensorflow-cpu==2.19.* for this Python"
    assert versions.without_wheel(pips.format("mpich==9.*")) == ""


def test_a_row_of_the_table_has_its_cells_in_the_order_of_the_head():
    result = versions.Result({"seconds": "61", "row": "2.16", "digits": "0.95, 0.95", "MPI": "mpich 4.3.2"})
    assert versions.table([result]).splitlines()[2] == "| 2.16 |  |  |  | mpich 4.3.2 |  |  | 0.95, 0.95 | 61 |"
