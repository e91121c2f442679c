"""`hpc-train stage` in one process: copies of earlier data, foreign files, changed sources, and the options."""

import os

import pytest
from staging_source import SIZES, files_below, make_source

from hpc_train.data.staging import broadcast, copying
from hpc_train.data.staging.command import Stage, run
from hpc_train.data.staging.stage import stage
from hpc_train.errors import UserError
from hpc_train.parallel.mpi import Alone


@pytest.fixture
def source(tmp_path):
    return make_source(tmp_path)


class Reads(copying.Copier):
    """A copier that counts its reads, and fails or changes the source in the first one."""

    def __init__(self, error=None, change=None):
        self.error, self.change, self.count = error, change, 0

    def open(self, path):
        self.count += 1
        if self.error and self.count == 1:
            raise OSError(self.error, os.strerror(self.error))
        if self.change and self.count == 1:
            self.change(path)
        return super().open(path)


def alone(source, to, **options):
    """Stage the folder with one process; the result and the printed lines."""
    lines = []
    files = [str(source / name) for name in files_below(source)]
    return stage(files, str(source), to, Alone(), report=lines.append, **options), lines


def test_one_process_stages_as_well(source, tmp_path, monkeypatch):
    monkeypatch.setattr(broadcast, "PIECE", 2**16)
    copier = Reads()
    staged, lines = alone(source, tmp_path / "to", copier=copier)
    assert files_below(tmp_path / "to") == files_below(source)
    assert staged.files == sorted(str(tmp_path / "to" / name) for name in files_below(source))
    assert (staged.directory, staged.bytes, staged.reused) == (tmp_path / "to", sum(SIZES), 0)
    assert staged.read == copier.count == len(SIZES)
    assert all((tmp_path / "to" / name).read_bytes() == (source / name).read_bytes() for name in files_below(source))
    assert len(lines) == 1
    again, _ = alone(source, tmp_path / "to")
    assert (again.bytes, again.reused, again.read) == (0, len(SIZES), 0)


def test_a_read_error_that_may_pass_is_tried_again_and_another_is_not(source, tmp_path):
    staged, lines = alone(source, tmp_path / "to", copier=Reads(5))
    assert staged.read == len(SIZES) + 1
    assert lines[0].startswith("retry 1 of 3: ")
    assert "Input/output error" in lines[0]
    with pytest.raises(UserError, match=r"cannot read .*\.h5: Permission denied"):
        alone(source, tmp_path / "other", copier=Reads(13))
    assert not list((tmp_path / "other").rglob("*.part"))


def test_a_folder_holds_only_the_data_that_were_staged_last(source, tmp_path):
    to = tmp_path / "to"
    alone(source, to)
    (source / "train/03.h5").unlink()
    again, lines = alone(source, to)
    assert files_below(to) == files_below(source)
    assert (again.read, lines[0]) == (0, "removed 1 files that are no longer in the data")
    # The sub-folders are removed as well: they would count as splits.
    other = tmp_path / "other"
    other.mkdir()
    for name in ("x.h5", "y.h5"):
        (other / name).write_bytes(name.encode())
    _, lines = alone(other, to)
    assert lines[0] == "removed 11 files that are no longer in the data"
    assert {path.name for path in to.iterdir()} == {"x.h5", "y.h5", ".hpc-train-stage"}
    # Removed files are copied again when they are staged again.
    assert alone(source, to)[0].read == len(SIZES) - 1
    assert files_below(to) == files_below(source)


def test_data_files_that_no_job_staged_are_an_error_and_stay(source, tmp_path):
    to = tmp_path / "to"
    alone(source, to)
    (source / "train/03.h5").unlink()
    own, note, changed = to / "deep" / "mine.nc", to / "note.txt", to / "train/03.h5"
    own.parent.mkdir()
    for path in (own, note):
        path.write_text("of the user")
    copier = Reads()
    with pytest.raises(
        UserError, match=r"to on node \S+ also holds deep/mine.nc, which is not from .*/source; empty this folder or"
    ):
        alone(source, to, copier=copier)
    own.unlink()
    changed.write_text("no longer the copy that was staged")
    with pytest.raises(UserError, match=r"also holds train/03\.h5,"):
        alone(source, to, copier=copier)
    assert changed.read_text() == "no longer the copy that was staged"
    changed.unlink()
    assert alone(source, to, copier=copier)[0].read == copier.count == 0
    assert note.exists()


def test_a_job_that_stages_other_data_to_the_same_folder_meanwhile_is_an_error(source, tmp_path):
    other = tmp_path / "other"
    other.mkdir()
    (other / "x.h5").write_bytes(b"x")

    class Second(copying.Copier):
        started = False

        def write(self, descriptor, data, offset):
            if not self.started:
                self.started = True
                alone(other, tmp_path / "to")
            super().write(descriptor, data, offset)

    with pytest.raises(UserError, match=r"another program put x\.h5 there while this job staged"):
        alone(source, tmp_path / "to", copier=Second())


def lengthen(path):
    with open(path, "ab") as file:
        file.write(b"more")


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda path: os.truncate(path, 10), "the source ended after 10 of"),
        (lengthen, "the source changed while it was read"),
    ],
)
def test_a_source_that_changes_while_it_is_read_is_staged_again(source, tmp_path, change, reason):
    # The largest file comes first.
    staged, lines = alone(source, tmp_path / "to", copier=Reads(change=change))
    assert f"train/07.h5 on node {os.uname().nodename}: {reason}" in lines[0]
    assert (tmp_path / "to/train/07.h5").read_bytes() == (source / "train/07.h5").read_bytes()
    assert staged.read == len(SIZES) + 1


def test_a_manifest_with_half_a_line_loses_that_file_only(source, tmp_path):
    alone(source, tmp_path / "to")
    manifest = tmp_path / "to" / ".hpc-train-stage" / "manifest.jsonl"
    manifest.write_bytes(manifest.read_bytes()[:-20])
    assert alone(source, tmp_path / "to")[0].read == 1
    assert alone(source, tmp_path / "to")[0].read == 0


def test_a_temporary_copy_of_a_job_that_still_runs_is_left_alone(source, tmp_path):
    class Second(copying.Copier):
        started = False

        def write(self, descriptor, data, offset):
            if not self.started:
                self.started = True
                alone(source, tmp_path / "to")
            super().write(descriptor, data, offset)

    staged, _ = alone(source, tmp_path / "to", copier=Second())
    assert staged.read == len(SIZES)
    assert not list((tmp_path / "to").rglob("*.part"))
    assert alone(source, tmp_path / "to", verify=True)[0].read == 0


def test_the_command_takes_a_folder_a_file_or_a_pattern_and_folders_from_variables(
    source, tmp_path, monkeypatch, capsys
):
    monkeypatch.setenv("SCRATCH_OF_THE_NODE", str(tmp_path))
    run(Stage(source, "$SCRATCH_OF_THE_NODE/folder"))
    assert files_below(tmp_path / "folder") == files_below(source)
    run(Stage(source / "train/03.h5", str(tmp_path / "file")))
    assert files_below(tmp_path / "file") == {"03.h5"}
    run(Stage(source / "*" / "0[23].h5", str(tmp_path / "pattern")))
    assert files_below(tmp_path / "pattern") == {"test/02.h5", "train/03.h5"}
    assert capsys.readouterr().out.count("staged ") == 3


def test_wrong_places_are_refused(source, tmp_path):
    for to, problem in (
        (source / "train" / "copies", "lies inside the data"),
        (tmp_path, "holds the source"),
        ("$NO_SUCH_VARIABLE/x", "not set on every rank"),
    ):
        with pytest.raises(UserError, match=problem):
            run(Stage(source, str(to)))
    with pytest.raises(UserError, match="no such file or folder"):
        run(Stage(tmp_path / "nothing", str(tmp_path / "to")))
    with pytest.raises(UserError, match="it must be 0 or more"):
        run(Stage(source, str(tmp_path / "to"), retries=-1))
