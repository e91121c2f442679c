"""Images of a few bytes that claim more pixels than memory holds: one line, by their headers."""

import io
import struct
import zlib

import pytest
from PIL import Image

from hpc_train.data.verify.scan_images import problem_of
from hpc_train.errors import UserError
from hpc_train.prepare.images.files import BadImage, Treatment, limit_pixels, prepare_image
from hpc_train.prepare.images.options import ImageOptions


def png(width, height):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(bytes(1000))) + chunk(b"IEND", b"")
    )


def jpeg(width, height, **options):
    raw = io.BytesIO()
    Image.new("RGB", (16, 16)).save(raw, "JPEG", **options)
    content = bytearray(raw.getvalue())
    frame = max(content.find(b"\xff\xc0"), content.find(b"\xff\xc2"))
    content[frame + 5 : frame + 9] = struct.pack(">HH", height, width)
    return bytes(content)


LARGE = {
    "png": png(30_000, 30_000),
    "jpeg": jpeg(65_500, 65_500),
    "progressive jpeg": jpeg(65_500, 65_500, progressive=True),
}


@pytest.mark.parametrize("case", LARGE)
def test_an_image_that_claims_too_many_pixels_is_bad(tmp_path, case):
    (tmp_path / "image").write_bytes(LARGE[case])
    limit_pixels(ImageOptions.max_pixels)
    with pytest.raises(BadImage, match=r"more than 67108864 pixels \(--max-pixels\)"):
        prepare_image(str(tmp_path / "image"), Treatment())


def test_max_pixels_is_the_most_that_is_decoded(tmp_path):
    Image.new("RGB", (20, 10)).save(tmp_path / "image", "PNG")
    limit_pixels(200)
    assert prepare_image(str(tmp_path / "image"), Treatment()).changes == ("PNG",)
    limit_pixels(198)
    with pytest.raises(BadImage, match="more than 198 pixels"):
        prepare_image(str(tmp_path / "image"), Treatment())


def test_shards_hold_no_image_that_training_would_refuse():
    with pytest.raises(UserError, match="shards hold images of at most 134217728; add --max-side"):
        ImageOptions(max_pixels=2**28).check(wanted=True)
    ImageOptions(max_pixels=2**28, max_side=512).check(wanted=True)


@pytest.mark.parametrize("progressive", [False, True])
def test_an_image_in_a_shard_is_not_decoded_if_it_claims_too_many(progressive):
    import tensorflow as tf

    from hpc_train.data.tensors.jpeg import training_transform, validation_transform

    large = jpeg(20_000, 20_000, progressive=progressive)
    assert problem_of(large) in ("20000 x 20000, more than 134217728 pixels",) or "exceeds limit" in problem_of(large)
    for transform in (
        validation_transform(8),
        lambda image: training_transform(8)(image, tf.constant([1, 2], tf.int64)),
    ):
        with pytest.raises(tf.errors.InvalidArgumentError):
            tf.function(transform)(tf.constant(large))
