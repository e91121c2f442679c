"""`hpc-train bench decode`: what it measures, and what it refuses before it measures."""

import io
import json
import math

import numpy as np
import pytest
from jpegs import write
from PIL import Image

from hpc_train.bench.input.decode import DecodeBench, run, write_photos
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.reading.encoded_reader import EncodedReader
from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError


@pytest.fixture
def images(tmp_path):
    write(tmp_path / "jpeg")
    return tmp_path / "jpeg"


def test_every_way_is_measured_in_every_round_and_the_suite_is_compared_with_both_loops(images, tmp_path, capsys):
    output = tmp_path / "figures.json"
    how = {"image_size": 16, "batch_size": 4, "threads": (1,), "rounds": 2, "seconds": 0.01}
    run(DecodeBench(data=images, output=output, **how))
    figures = json.loads(output.read_text())
    assert (figures["images"], figures["options"]["batch_size"]) == (24, 4)
    assert len(figures["ways"]) == 4
    for way in figures["ways"].values():
        assert len(way["samples_per_second"]) == len(way["samples_per_core_second"]) == 2
        assert min(way["samples_per_second"]) > 0
    assert len(figures["ratios"]) == 4
    printed = capsys.readouterr().out
    assert printed.startswith("24 JPEG images, ")
    for name in (*figures["ways"], *figures["ratios"]):
        assert name in printed


def test_what_cannot_be_measured_is_refused_in_one_line(images, tmp_path):
    write_shards(tmp_path / "arrays", "train", np.zeros((4, 8, 8, 3), np.uint8), np.zeros(4, int), classes=2)
    for chosen, message in (
        ({"data": tmp_path / "arrays"}, "holds arrays, not JPEG images"),
        ({"data": images, "split": "validation"}, "no shards of split 'validation'"),
        ({"data": images, "batch_size": 25}, "--batch-size 25 is more than its 24 images"),
        ({"data": images, "output": tmp_path}, "is a folder"),
        ({"data": images, "output": tmp_path / "no" / "x.json"}, "does not exist"),
        ({"split": "test"}, "--split is for --data"),
        ({"threads": (0,)}, "must be at least 1"),
        ({"seconds": math.nan}, "more than 0"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            run(DecodeBench(**chosen))
        assert "\n" not in str(raised.value)


def test_made_up_photographs_have_the_spectrum_of_real_ones(tmp_path):
    write_photos(tmp_path, 66, 96, 128)
    catalogue = Catalogue.open(tmp_path)
    assert catalogue.samples == 66
    files, _ = EncodedReader(catalogue).read([0, 1, 64])
    assert files[0] == files[2] != files[1]
    power = np.abs(np.fft.fft2(np.asarray(Image.open(io.BytesIO(files[0]))).mean(2)[:96, :96])) ** 2
    frequency = np.hypot(*np.meshgrid(np.fft.fftfreq(96), np.fft.fftfreq(96)))
    low, high = (power[(frequency > f) & (frequency < 2 * f)].mean() for f in (0.04, 0.16))
    # Four times the frequency, a sixteenth of the power.
    assert 8 < low / high < 32
