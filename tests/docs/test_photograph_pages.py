"""What the pages show of photographs with masks, from pictures to predictions: run on made tiles, in their order."""

import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import shown
from launch import REPOSITORY
from photographs import tiles
from PIL import Image

SECTIONS = {"preparing.md": "## Pictures with masks", "climate.md": "## Maps of other fields"}


def commands(page):
    """The command lines in the section of a page that is about photographs."""
    path = REPOSITORY / "docs" / page
    lines = path.read_text().splitlines()
    first = lines.index(SECTIONS[page])
    last = next(number for number in range(first + 1, len(lines)) if lines[number].startswith("## "))
    return [command.text for command in shown.commands(path) if first < command.line <= last]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with photos/SPLIT/images and masks, and photos.npz."""
    folder = tmp_path_factory.mktemp("photographs")
    pictures, labels = tiles(24)
    np.savez(folder / "photos.npz", x=pictures, y=labels)
    for split, rows in (("train", slice(0, 14)), ("val", slice(14, 18)), ("test", slice(18, 24))):
        for kind, values in (("images", pictures), ("masks", labels)):
            (folder / "photos" / split / kind).mkdir(parents=True)
            for number, one in enumerate(values[rows]):
                Image.fromarray(one).save(folder / "photos" / split / kind / f"tile{number}.png")
    return folder


def run(command, folder):
    """What a command prints, run in the folder; of a training, one epoch."""
    words = shlex.split(command)
    runs = sorted((folder / "runs").glob("tiramisu-small-*"))
    words = [str(runs[-1]) if word == "runs/tiramisu-small-..." else word for word in words]
    words = ["1" if before == "--epochs" else word for before, word in zip(["", *words], words, strict=False)]
    words[0] = str(Path(sys.executable).with_name(words[0]))
    ended = subprocess.run(words, cwd=folder, capture_output=True, text=True, timeout=600)
    assert ended.returncode == 0, f"{command}\n{ended.stdout}\n{ended.stderr}"
    return ended.stdout


def test_the_commands_of_the_pages_run(folder):
    masks, arrays = commands("preparing.md")
    # The second makes the same from an npz file.
    for command in (arrays, masks):
        shutil.rmtree(folder / "shards", ignore_errors=True)
        run(command, folder)
    verify, stats, train, predict, report = commands("climate.md")
    assert "no faults found" in run(verify, folder)
    assert "crack" in run(stats, folder)
    assert "val_mean_iou" in run(train, folder)
    said = run(predict, folder)
    assert "glaze" in said
    assert said.count("picture of sample") == 4
    (made,) = (folder / "runs").iterdir()
    pictures = sorted(made.glob("predictions-*.png"))
    assert len(pictures) == 4
    for picture in pictures:
        with Image.open(picture) as image:
            assert min(image.size) > 200
    run(report, folder)
    assert {path.name for path in made.glob("c*.png")} == {"curves.png", "confusion.png"}
