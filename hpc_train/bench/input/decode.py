"""`hpc-train bench decode`: how many JPEG images the input path gives in a second, and in a second of one core.

It measures four ways, which take turns in one process, round after round, with the same number of threads:

    training          the suite's: read, compared with checksums, a random part decoded, resized, mirrored, batched
    validation        the same with the centre of each image
    decode_jpeg       a plain loop of tf.io.decode_jpeg over the same files, read in the same order: the whole image
    decode and resize the same, then tf.image.resize to the wanted size, as bytes

Rates are of images. Those for a core count the core time of this process in all of its threads, reading and planning
included. An uncounted round finds how many steps fill --seconds.
"""

import io
import math
import os
import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np

from hpc_train.console import say
from hpc_train.errors import UserError
from hpc_train.files.json_file import write_json
from hpc_train.units import size

_DISTINCT = 64
_SUITE = "training", "validation"


@dataclass(frozen=True)
class DecodeBench:
    """Measure decoding of JPEG images for training and validation, beside a plain loop of tf.io.decode_jpeg."""

    data: Path | None = None
    """Folder of JPEG shards; by default 256 images of 500 x 375, made of noise with the spectrum of photographs."""
    split: str = "train"
    """Split to read."""
    image_size: int = 224
    """Side of the images that are made."""
    crop: Literal["inception", "centre"] = "inception"
    """The part of an image that training takes."""
    batch_size: int = 32
    """Images in a batch."""
    threads: tuple[int, ...] = ()
    """Numbers of threads that decode, each measured; by default 1, and one for each core."""
    rounds: int = 7
    """Counted rounds. Each has every way once, in an order that rotates."""
    seconds: float = 1
    """Seconds of one way in one round, approximately."""
    seed: int = 0
    """Seed of the order and of the random parts."""
    output: Path | None = None
    """JSON file for the figures."""


def run(options: DecodeBench) -> None:
    """Measure and print.

    Raises:
        UserError: impossible options, or data that are not JPEG shards.
    """
    least = min(options.image_size, options.batch_size, options.rounds, *options.threads)
    if least < 1 or not 0 < options.seconds < math.inf:
        raise UserError("--image-size, --batch-size, --rounds, --threads must be at least 1, --seconds more than 0")
    if options.output and not options.output.parent.is_dir():
        raise UserError(f"--output {options.output}: the folder {options.output.parent} does not exist; make it first")
    if options.output and options.output.is_dir():
        raise UserError(f"--output {options.output}: is a folder; name a file in it")
    if options.data is None and options.split != DecodeBench.split:
        raise UserError("--split is for --data, and made-up images have no splits; leave it out")
    # Faults in the data are reported before TensorFlow is loaded, which takes seconds.
    catalogue = _open(options.data, options) if options.data else None
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    from hpc_train.parallel.quiet import quiet_import

    with quiet_import():
        import tensorflow as tf

    tf.config.set_visible_devices([], "GPU")
    with tempfile.TemporaryDirectory(prefix="hpc-train-photos-") as folder:
        if catalogue is None:
            write_photos(Path(folder), max(256, options.batch_size), 375, 500)
            catalogue = _open(Path(folder), options)
        figures = _measure(options, catalogue)
    _report(figures)
    if options.output:
        write_json(options.output, figures, "give another --output")


def _open(data: Path, options: DecodeBench):
    from hpc_train.data.catalogue import Catalogue

    catalogue = Catalogue.open(data, options.split)
    if not catalogue.encoding:
        raise UserError(f"{data}: holds arrays, not JPEG images; measure them with `hpc-train bench input`")
    if catalogue.samples < options.batch_size:
        raise UserError(
            f"{data}: --batch-size {options.batch_size} is more than its {catalogue.samples} images; make it smaller"
        )
    return catalogue


def _measure(options: DecodeBench, catalogue) -> dict:
    from hpc_train.bench.input import rounds, ways
    from hpc_train.data.plan import TrainPlan
    from hpc_train.data.reading.encoded_reader import EncodedReader
    from hpc_train.data.tensors.jpeg_input import JpegInput

    reader = EncodedReader(catalogue.resized(options.image_size))
    plan = TrainPlan(catalogue.samples, options.batch_size, 1, options.seed)

    def suite(threads: int, crop: str) -> Callable:
        return lambda epoch, steps: JpegInput(reader, threads, crop=crop).training(plan, 0, epoch, 0, steps)

    made, cores = [], len(os.sched_getaffinity(0))
    image_bytes = reader.sample_bytes
    for threads in sorted(set(options.threads)) or sorted({1, cores}):
        for kind, crop in zip(_SUITE, (options.crop, "centre"), strict=True):
            lead = JpegInput(reader, threads).reading(options.batch_size).groups + 4
            made.append(ways.Way(kind, threads, None, suite(threads, crop), image_bytes, lead))
        for kind, resized in (("decode_jpeg", None), ("decode and resize", options.image_size)):
            made.append(ways.Way(kind, threads, None, partial(_plain, reader, plan, threads, resized), image_bytes))
    stored = int(catalogue.sizes.sum())
    found = rounds.interleave(made, options.rounds, options.seconds, options.batch_size, stored)
    return {
        "options": asdict(options),
        "cores": cores,
        "images": catalogue.samples,
        "image_bytes": image_bytes,
        "ways": found,
        "ratios": _ratios(made, found),
    }


def _plain(reader, plan, threads: int, side: int | None, epoch: int, steps: int) -> Iterator[list]:
    """Batches decoded by TensorFlow's operations, one call for each image."""
    import tensorflow as tf

    def decode(file: bytes):
        image = tf.io.decode_jpeg(file, channels=3)
        return image if side is None else tf.cast(tf.image.resize(image, (side, side)), tf.uint8)

    with ThreadPoolExecutor(threads) as pool:
        for step in range(steps):
            later, within = divmod(step, plan.steps())
            files, _ = reader.read(plan.indices(epoch + later, within, 0))
            yield list(map(decode, files) if threads == 1 else pool.map(decode, files))


def _ratios(made, found: dict[str, dict]) -> dict[str, list[float]]:
    """Images in a core-second by the suite's ways, over those by the plain ways, in each round."""
    result = {}
    for ours in (way for way in made if way.kind in _SUITE):
        for plain in (way for way in made if way.kind not in _SUITE and way.threads == ours.threads):
            rates = (found[way.name]["samples_per_core_second"] for way in (ours, plain))
            result[f"{ours.name} / {plain.name}"] = [a / b for a, b in zip(*rates, strict=True)]
    return result


def _report(figures: dict) -> None:
    from statistics import median

    options, side = figures["options"], figures["options"]["image_size"]
    what = "JPEG images" if options["data"] else "images of 500 x 375, noise with the spectrum of photographs"
    say(
        f"{figures['images']} {what}, {size(figures['image_bytes'])} each in the mean, to {side} x {side}; "
        f"batches of {options['batch_size']}, {options['rounds']} rounds, {figures['cores']} cores, page cache warm"
    )
    say(f"{'':22}{'images/s: median':>18}{'min':>9}{'max':>9}{'images/core-s':>16}")
    for name, way in figures["ways"].items():
        rates = way["samples_per_second"]
        core = median(way["samples_per_core_second"])
        say(f"{name:22}{median(rates):18.5g}{min(rates):9.4g}{max(rates):9.4g}{core:16.5g}")
    others = [cores for way in figures["ways"].values() for cores in way["other_cores"]]
    say(f"other programs used {median(others):.2f} cores meanwhile ({min(others):.2f} to {max(others):.2f})")
    say("images for a core-second, quotients of the rounds:")
    for name, pairs in figures["ratios"].items():
        say(f"  {name:40} median {median(pairs):.3g} ({min(pairs):.3g} to {max(pairs):.3g})")


def write_photos(directory: Path, count: int, height: int, width: int, quality: int = 90) -> None:
    """Write shards of made-up JPEG files, split train.

    The images are noise in three correlated channels. Its amplitude falls with frequency as in photographs (1/f; Field
    1987). 64 different images are repeated; at 500 x 375 and quality 90 they have about 117 kB each.

    Args:
        directory: folder for the shards.
        count: how many images.
        height: of an image, in pixels.
        width: the same.
        quality: of JPEG, up to 100.
    """
    from hpc_train.data.shards.encoded import write_encoded_shards

    files = [_photo(np.random.default_rng(number), height, width, quality) for number in range(min(count, _DISTINCT))]
    images = [files[number % len(files)] for number in range(count)]
    write_encoded_shards(directory, "train", images, np.zeros(count, np.int64), classes=1, source="1/f noise")


def _photo(draw: np.random.Generator, height: int, width: int, quality: int) -> bytes:
    from PIL import Image

    frequency = np.hypot(np.fft.fftfreq(height)[:, np.newaxis], np.fft.rfftfreq(width))
    frequency[0, 0] = np.inf
    fields = np.fft.irfft2(np.fft.rfft2(draw.normal(size=(4, height, width))) / frequency, (height, width))
    # Brightness, and a third as much of each colour.
    pixels = np.moveaxis(fields[0] + fields[1:] / 3, 0, -1)
    pixels = 128 + 50 * pixels / pixels.std()
    file = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(file, "JPEG", quality=quality)
    return file.getvalue()
