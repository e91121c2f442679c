"""Data sets with bytes in other files: read as h5py reads them where all is there, and named where it is not."""

import os
from itertools import pairwise

import h5py
import numpy as np
import pytest
import tyro
from small_shards import refusal

from hpc_train.data.inspect.command import Inspect
from hpc_train.data.inspect.command import run as run_inspect
from hpc_train.data.options import DataOptions
from hpc_train.data.reading.reader import Reader
from hpc_train.data.staging.command import Stage
from hpc_train.data.staging.command import run as run_stage
from hpc_train.data.statistics.command import Stats
from hpc_train.data.statistics.command import run as run_stats
from hpc_train.data.verify.command import Verify
from hpc_train.data.verify.command import run as run_verify
from hpc_train.errors import UserError

A, B = np.arange(1, 13, dtype="<f4").reshape(4, 3), np.arange(20, 32, dtype="<f4").reshape(4, 3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder data/ with a file of two sources, as every way to take bytes from them; and the sources in parts/."""
    (tmp_path / "data" / "parts").mkdir(parents=True)
    monkeypatch.chdir(tmp_path / "data")
    for name, values in (("a", A), ("b", B)):
        with h5py.File(f"parts/{name}.h5", "w") as file:
            file["deep/x"] = values
        values.tofile(f"{name}.raw")
    with h5py.File("all.h5", "w") as file:
        layout = h5py.VirtualLayout((8, 3), "<f4")
        for number, name in enumerate("ab"):
            layout[4 * number : 4 * number + 4] = h5py.VirtualSource(f"parts/{name}.h5", "deep/x", (4, 3))
        file.create_virtual_dataset("virtual", layout, fillvalue=-1)
        file.create_dataset("raw", (8, 3), "<f4", external=[("a.raw", 0, A.nbytes), ("b.raw", 0, B.nbytes)])
        file["link"] = h5py.ExternalLink("parts/a.h5", "/deep/x")
        file["through"] = h5py.ExternalLink("parts/b.h5", "/deep")
        file["soft"] = h5py.SoftLink("/virtual")
    return tmp_path / "data"


WAYS = {"virtual": [*A, *B], "raw": [*A, *B], "link": A, "through/x": B, "soft": [*A, *B]}
FILES = {
    "virtual": ["parts/a.h5", "parts/b.h5"],
    "raw": ["a.raw", "b.raw"],
    "link": ["parts/a.h5"],
    "through/x": ["parts/b.h5"],
    "soft": ["parts/a.h5", "parts/b.h5"],
}


def opened(data, name, **options):
    return DataOptions(data=data, inputs=(name,), **options).catalogue()


@pytest.mark.parametrize("name", WAYS)
def test_sources_are_read_and_named(folder, capsys, name):
    catalogue = opened(folder / "all.h5", name)
    assert catalogue.sources == tuple(str(folder / source) for source in FILES[name])
    np.testing.assert_array_equal(Reader(catalogue).read(range(catalogue.samples))[0], WAYS[name])
    run_inspect(tyro.cli(Inspect, args=["--data", str(folder / "all.h5"), "--inputs", name]))
    assert f"takes numbers from other files: {', '.join(catalogue.sources)}\n" in capsys.readouterr().out


def test_files_of_unknown_layout_are_shown_with_their_sources(folder, capsys):
    run_inspect(Inspect(data=folder / "all.h5"))
    shown = capsys.readouterr().out.splitlines()
    lines = {line.split()[0]: after.strip() for line, after in pairwise(shown) if line}
    assert lines["raw"] == f"takes numbers from other files: {folder / 'a.raw'}, {folder / 'b.raw'}"
    assert lines["virtual"] == f"takes numbers from other files: {folder}/parts/a.h5, {folder}/parts/b.h5"


@pytest.mark.parametrize("name", WAYS)
def test_a_missing_source_is_named_when_the_data_are_opened(folder, capsys, name):
    missing = folder / FILES[name][-1]
    missing.unlink()
    data = folder / "all.h5"
    arguments = {"args": ["--data", str(data), "--inputs", name]}
    texts = [refusal(opened, data, name), refusal(run_stats, tyro.cli(Stats, **arguments))]
    assert "1 thing is broken" in refusal(run_verify, tyro.cli(Verify, **arguments))
    texts.append(capsys.readouterr().out.removeprefix("broken: "))
    for text in texts:
        assert text.startswith(f"{data}: {'virtual' if name == 'soft' else name.split('/')[0]} ")
        assert str(missing) in text


def test_a_source_that_vanishes_later_is_named_when_it_is_read(folder):
    reader = Reader(opened(folder / "all.h5", "virtual"))
    (folder / "parts" / "b.h5").unlink()
    assert str(folder / "parts" / "b.h5") in refusal(reader.read, [0])


def test_a_source_that_lacks_a_part_is_named(folder):
    os.truncate("b.raw", 40)
    wanted = f"raw has its bytes in {folder / 'b.raw'}, which ends at byte 40, not 48"
    assert wanted in refusal(opened, folder / "all.h5", "raw")
    with h5py.File("parts/b.h5", "r+") as file:
        del file["deep/x"]
        file["deep/x"] = B[:2]
    assert "parts/b.h5, which is (2, 3) and lacks a part" in refusal(opened, folder / "all.h5", "virtual")
    with h5py.File("parts/b.h5", "r+") as file:
        del file["deep/x"]
    assert "takes deep/x in parts/b.h5, which has no such data set" in refusal(opened, folder / "all.h5", "virtual")


def test_a_virtual_data_set_of_virtual_ones_needs_their_sources_too(folder):
    with h5py.File("upper.h5", "w") as file:
        layout = h5py.VirtualLayout((8, 3), "<f4")
        layout[:] = h5py.VirtualSource("all.h5", "virtual", (8, 3))
        file.create_virtual_dataset("x", layout)
    catalogue = opened(folder / "upper.h5", "x")
    assert catalogue.sources == tuple(str(folder / name) for name in ("all.h5", "parts/a.h5", "parts/b.h5"))
    np.testing.assert_array_equal(Reader(catalogue).read(range(8))[0], [*A, *B])
    (folder / "parts" / "a.h5").unlink()
    assert str(folder / "parts" / "a.h5") in refusal(opened, folder / "upper.h5", "x")


def test_numbered_sources_are_those_that_fill_the_data_set(folder):
    for number, values in enumerate((A, B, A)):
        with h5py.File(f"n-{number}.h5", "w") as file:
            file["x"] = values
    unlimited = h5py.h5s.UNLIMITED
    space = h5py.h5s.create_simple((4, 3), (unlimited, 3))
    space.select_hyperslab((0, 0), (unlimited, 1), (4, 1), (4, 3))
    plist = h5py.h5p.create(h5py.h5p.DATASET_CREATE)
    plist.set_virtual(space, b"n-%b.h5", b"/x", h5py.h5s.create_simple((4, 3)))
    with h5py.File("numbered.h5", "w") as file:
        h5py.h5d.create(file.id, b"x", h5py.h5t.IEEE_F32LE, space, plist)
    catalogue = opened(folder / "numbered.h5", "x")
    assert catalogue.sources == tuple(str(folder / f"n-{number}.h5") for number in range(3))
    np.testing.assert_array_equal(Reader(catalogue).read(range(12))[0], [*A, *B, *A])


@pytest.mark.parametrize("how", ["virtual", "link", "raw", "symbolic link"])
def test_files_outside_the_folder_of_the_data_are_read_only_where_that_is_asked_for(folder, how):
    secret = folder.parent / "secret.h5"
    with h5py.File(secret, "w") as file:
        dataset = file.create_dataset("x", data=A)
        at = dataset.id.get_offset()
    if how == "symbolic link":
        (folder / "inside.h5").symlink_to(secret)
    with h5py.File("out.h5", "w") as file:
        if how == "virtual":
            layout = h5py.VirtualLayout((4, 3), "<f4")
            layout[:] = h5py.VirtualSource("../secret.h5", "x", (4, 3))
            file.create_virtual_dataset("x", layout)
        elif how == "raw":
            file.create_dataset("x", (4, 3), "<f4", external=[(str(secret), at, A.nbytes)])
        else:
            file["x"] = h5py.ExternalLink(str(secret) if how == "link" else "inside.h5", "/x")
    named = folder / "inside.h5" if how == "symbolic link" else secret
    text = f"{folder / 'out.h5'}: takes numbers from {named}, outside the folder of the data; "
    assert refusal(opened, folder / "out.h5", "x").startswith(text)
    assert "--follow-external" in refusal(run_stats, Stats(data=folder / "out.h5", inputs=("x",)))
    assert "1 thing is broken" in refusal(run_verify, Verify(data=folder / "out.h5", inputs=("x",)))
    (got,) = Reader(opened(folder / "out.h5", "x", follow_external=True)).read(range(4))
    np.testing.assert_array_equal(got, A)
    # The folder of the data, not that of the file.
    if how == "virtual":
        np.testing.assert_array_equal(Reader(opened(f"{folder.parent}/d*a/out.h5", "x")).read(range(4))[0], A)


def test_staging_copies_sources_too_or_refuses(folder, tmp_path, capsys):
    (folder / "all.h5").unlink()
    with h5py.File("all.h5", "w") as file:
        layout = h5py.VirtualLayout((4, 3), "<f4")
        layout[:] = h5py.VirtualSource("parts/a.h5", "deep/x", (4, 3))
        file.create_virtual_dataset("x", layout)
    run_stage(Stage(data=folder, to=str(tmp_path / "to")))
    catalogue = opened(tmp_path / "to" / "all.h5", "x")
    assert catalogue.sources == (str(tmp_path / "to" / "parts" / "a.h5"),)
    np.testing.assert_array_equal(Reader(catalogue).read(range(4))[0], A)
    text = refusal(run_stage, Stage(data=folder / "all.h5", to=str(tmp_path / "one")))
    assert text.startswith(f"{folder / 'all.h5'}: x is virtual, with a part in parts/a.h5, which would not be in the c")
    assert not (tmp_path / "one" / "all.h5").exists()
    for number, (name, value) in enumerate(
        {"link": h5py.ExternalLink(str(folder / "parts" / "a.h5"), "/deep/x"), "raw": None}.items()
    ):
        with h5py.File("all.h5", "w") as file:
            if value is None:
                file.create_dataset("raw", (4, 3), "<f4", external=[("a.raw", 0, A.nbytes)])
            else:
                file[name] = value
        with pytest.raises(UserError, match=f"all.h5: {name} .*which would not be in the copy"):
            run_stage(Stage(data=folder, to=str(tmp_path / f"other{number}")))
