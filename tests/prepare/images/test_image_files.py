"""`hpc-train prepare image-folder`: what one image file becomes, good or bad, as JPEG or as pixels."""

import io
import os

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from image_trees import decode, jpeg, one, pixels, prepare, read, refusal, tree, write
from jpegs import encode
from PIL import Image

from hpc_train.prepare.images.files import BadImage, Treatment, prepare_image

GREY16 = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 85

CHANGED = {
    "grey": (encode(pixels()[..., 0]), pixels()[..., :1].repeat(3, -1), "1 grey"),
    "CMYK": (encode(Image.fromarray(pixels()).convert("CMYK")), pixels(), "1 CMYK"),
    "PNG": (encode(pixels(), "PNG"), pixels(), "1 PNG"),
    "WebP": (encode(pixels(), "WEBP", lossless=True), pixels(), "1 WEBP"),
    "BMP": (encode(pixels(), "BMP"), pixels(), "1 BMP"),
    "alpha": (encode(np.dstack([pixels(), pixels()[..., 1]]), "PNG"), pixels(), "1 PNG, 1 alpha"),
    "grey with alpha": (
        encode(pixels()[..., :2].copy(), "PNG"),
        pixels()[..., :1].repeat(3, -1),
        "1 PNG, 1 grey, 1 alpha",
    ),
    "palette": (
        encode(Image.fromarray(pixels()).quantize(256), "GIF"),
        np.asarray(Image.fromarray(pixels()).quantize(256).convert("RGB")),
        "1 GIF, 1 palette",
    ),
    "16 bit": (encode(GREY16, "PNG"), (GREY16 // 256)[..., None].repeat(3, -1), "1 PNG, 1 16 bit"),
}


@pytest.mark.parametrize("kind", CHANGED)
def test_what_is_no_plain_rgb_jpeg_is_encoded_again(tmp_path, kind, capsys):
    raw, expected, said = CHANGED[kind]
    sample = one(tmp_path, raw, "--quality", 100, name="x.JPEG")
    assert sample != raw
    assert np.abs(decode(sample).astype(int) - expected).mean() < 2
    assert f"train: encoded again as RGB JPEG: {said}\n" in capsys.readouterr().out


@pytest.mark.parametrize("kind", CHANGED)
def test_as_pixels_any_image_is_rgb(tmp_path, kind):
    raw, expected, _ = CHANGED[kind]
    sample = one(tmp_path, raw, "--size", 24)
    # The shorter side is 24 already; 32 columns lose 4 on each side.
    assert (sample.shape, sample.dtype) == ((24, 24, 3), np.uint8)
    assert np.abs(sample.astype(int) - expected[:, 4:28]).mean() < 3


# What the EXIF standard says row 0 and column 0 of the stored picture are when it is seen upright.
TURNS = {
    2: lambda x: x[:, ::-1],
    3: lambda x: x[::-1, ::-1],
    4: lambda x: x[::-1],
    5: lambda x: x.swapaxes(0, 1),
    6: lambda x: x[::-1].swapaxes(0, 1),
    7: lambda x: x[::-1, ::-1].swapaxes(0, 1),
    8: lambda x: x[:, ::-1].swapaxes(0, 1),
}


@pytest.mark.parametrize("orientation", TURNS)
def test_images_are_turned_upright_as_their_exif_data_say(tmp_path, orientation, capsys):
    exif = Image.Exif()
    exif[0x0112] = orientation
    sample = one(tmp_path, jpeg(exif=exif))
    expected = TURNS[orientation](pixels())
    assert decode(sample).shape == expected.shape
    assert np.abs(decode(sample).astype(int) - expected).mean() < 3
    assert "1 turned as its EXIF data say" in capsys.readouterr().out
    # Else a viewer, or preparing it again, would turn it once more.
    assert 0x0112 not in Image.open(io.BytesIO(sample)).getexif()


@pytest.mark.parametrize("options", [{"progressive": True}, {"optimize": True}, {"subsampling": 0}, {"exif": b"Exif"}])
def test_plain_jpeg_files_keep_their_bytes(tmp_path, options, capsys):
    raw = jpeg(**options)
    assert one(tmp_path, raw) == raw
    assert "again" not in capsys.readouterr().out


def test_bytes_after_the_end_of_a_jpeg_file_are_cut_off(tmp_path):
    # A thumbnail has an end marker of its own.
    raw = jpeg(exif=b"Exif\0\0" + jpeg())
    assert one(tmp_path, raw + b"\0\xff\xd9 and more") == raw


def test_arithmetic_coding_which_tensorflow_cannot_decode_is_encoded_again(tmp_path, monkeypatch):
    # Pillow writes none: the frame of a sequential file is shown as one with arithmetic coding.
    from hpc_train.prepare.images import files

    plain = files._structure
    monkeypatch.setattr(files, "_structure", lambda raw: (0xC9, plain(raw)[1]))
    assert one(tmp_path, jpeg()) != jpeg()


TRUNCATED = jpeg()[: len(jpeg()) // 2]

BAD = {
    "truncated": (TRUNCATED, "truncated"),
    "cut by its end marker": (jpeg()[:-2], "truncated"),
    "header only": (jpeg()[:30], "truncated"),
    "text": (b"<html>404 not found</html>", "not an image"),
    "empty": (b"", "empty file"),
    "3 x 3": (encode(pixels(3, 3)), "smaller than 8 pixels (3 x 3)"),
    "one side too short": (encode(pixels(7, 60)), "smaller than 8 pixels (60 x 7)"),
    "floats": (encode(np.zeros((20, 20), np.float32), "TIFF"), "pixels of 32 bits"),
    "broken PNG": (CHANGED["PNG"][0][:60] + b"XXXX" + CHANGED["PNG"][0][64:], "damaged ("),
    "segment that leads past the end": (
        (lambda raw: raw[:-40] + b"\xff\xe5\xff\xff" + raw[-36:])(jpeg()),
        "damaged (no end marker)",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_a_bad_image_is_named_and_nothing_is_written(tmp_path, case):
    raw, expected = BAD[case]
    tree(tmp_path / "in")
    write(tmp_path / "in/train/dog/x.jpg", raw)
    message = refusal(tmp_path / "in", tmp_path / "out")
    assert message.startswith(f"{tmp_path / 'in'}: 1 of 21 images are bad (1 {expected.split(' (')[0]}): ")
    assert f"train/dog/x.jpg ({expected}" in message
    assert message.endswith("leave them out with --bad skip")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("size", [(), ("--size", 16)])
def test_bad_images_are_left_out_counted_and_named(tmp_path, size, capsys):
    tree(tmp_path / "in")
    for number, (raw, _) in enumerate(BAD.values()):
        write(tmp_path / f"in/{'train' if number % 2 else 'val'}/dog/bad{number}.jpg", raw)
    prepare(tmp_path / "in", tmp_path / "out", "--bad", "skip", *size)
    told = capsys.readouterr()
    named = (tmp_path / "out/left-out.txt").read_text().splitlines()
    # As pixels, a JPEG file whose picture is whole needs no end.
    missing = {"segment that leads past the end"} if size else set()
    expected = [
        (f"{'train' if number % 2 else 'val'}/dog/bad{number}.jpg", reason)
        for number, (case, (_, reason)) in enumerate(BAD.items())
        if case not in missing
    ]
    assert len(named) == len(expected)
    for path, reason in expected:
        assert any(line.startswith(f"{path}\t{reason}") for line in named)
    assert len(read(tmp_path / "out", "train")[0]) == 10 + len(missing)
    assert len(read(tmp_path / "out", "validation")[0]) == 10
    assert f"train: left out {len([p for p, _ in expected if 'train' in p])} bad images (" in told.err
    assert f"left out: {len(expected)} images, all named in {tmp_path / 'out/left-out.txt'}" in told.err
    # Once they are fixed, the list goes.
    for path in (tmp_path / "in").glob("*/dog/bad*"):
        path.unlink()
    prepare(tmp_path / "in", tmp_path / "out")
    assert not (tmp_path / "out/left-out.txt").exists()


def test_more_bad_images_than_one_line_holds_are_counted(tmp_path):
    tree(tmp_path / "in")
    for number in range(20):
        write(tmp_path / f"in/train/cat/x{number:02d}.jpg", b"" if number < 12 else b"text")
    message = refusal(tmp_path / "in", tmp_path / "out")
    assert "20 of 40 images are bad (12 empty file, 8 not an image): " in message
    assert "train/cat/x00.jpg (empty file)" in message
    assert "x04.jpg (empty file) and 15 more;" in message


def test_the_shortest_side_may_be_chosen(tmp_path):
    assert decode(one(tmp_path, encode(pixels(3, 3)), "--min-side", 3)).shape == (3, 3, 3)


def test_what_is_no_readable_file_is_bad_and_never_waited_for(tmp_path):
    tree(tmp_path / "in")
    folder = tmp_path / "in/train/cat"
    (folder / "dangling.jpg").symlink_to("nowhere.jpg")
    (folder / "loop.jpg").symlink_to("loop.jpg")
    os.mkfifo(folder / "pipe.jpg")
    message = refusal(tmp_path / "in", tmp_path / "out")
    assert "3 of 23 images are bad (2 cannot be read, 1 not a file)" in message
    assert "dangling.jpg (cannot be read (No such file or directory))" in message
    assert "loop.jpg (cannot be read (Too many levels of symbolic links))" in message


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads any file")
def test_an_image_without_permission_is_bad(tmp_path):
    tree(tmp_path / "in")
    (tmp_path / "in/train/cat/0.jpg").chmod(0)
    assert "0.jpg (cannot be read (Permission denied))" in refusal(tmp_path / "in", tmp_path / "out")


def test_pixels_are_scaled_by_averaging_and_cut_from_the_middle(tmp_path):
    picture = np.random.default_rng(3).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    sample = one(tmp_path, encode(picture, "PNG"), "--size", 20, "--min-side", 20)

    def halved(x):
        """Means of four neighbours with a triangle's weights 1, 3, 3, 1, but for the first and the last."""
        return (x[1:-4:2] + 3 * x[2:-3:2] + 3 * x[3:-2:2] + x[4:-1:2]) / 8

    expected = halved(halved(picture.astype(float)).swapaxes(0, 1)).swapaxes(0, 1)
    assert sample.shape == (20, 20, 3)
    # Of 30 columns, 5 to 25 are kept; what is halved lacks one on each side.
    np.testing.assert_allclose(sample[1:-1], expected[:, 4:24], atol=1.5)


@pytest.mark.parametrize(("longest", "shape"), [(16, (12, 16)), (32, (24, 32)), (100, (24, 32))])
def test_only_images_larger_than_the_longest_side_are_shrunk(tmp_path, longest, shape, capsys):
    sample = one(tmp_path, jpeg(), "--max-side", longest)
    assert decode(sample).shape[:2] == shape
    assert (sample == jpeg()) == (longest >= 32)
    # The good image beside it is as large.
    assert (f"2 larger than {longest}" in capsys.readouterr().out) == (longest < 32)


def test_quality_is_that_of_images_encoded_again(tmp_path):
    sizes = [len(one(tmp_path / str(q), encode(pixels(), "PNG"), "--quality", q)) for q in (30, 95)]
    assert sizes[0] < sizes[1]


@settings(max_examples=300, deadline=None)
@given(
    edits=st.lists(st.tuples(st.integers(0, 2000), st.integers(0, 255)), max_size=6),
    cut=st.integers(0, 2000),
    progressive=st.booleans(),
)
def test_a_damaged_file_is_a_bad_image_or_decodes(tmp_path_factory, edits, cut, progressive):
    raw = bytearray(jpeg(progressive=progressive))
    for place, value in edits:
        raw[place % len(raw)] = value
    path = tmp_path_factory.getbasetemp() / "damaged.jpg"
    path.write_bytes(raw[: len(raw) - cut if cut < 50 else len(raw)])
    try:
        sample = prepare_image(path, Treatment()).data
    except BadImage:
        return
    assert sample.startswith(b"\xff\xd8\xff")
    assert sample.endswith(b"\xff\xd9")
    assert decode(sample).size
