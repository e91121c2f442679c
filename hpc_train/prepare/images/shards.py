"""`hpc-train prepare image-folder`: decodes image files in threads and writes them into shards."""

import os
import sys
import warnings
from collections import Counter, deque
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import numpy as np
from PIL import Image

from hpc_train.console import ProgressLine, say
from hpc_train.data.plan.permutation import permute
from hpc_train.data.shards.compression import Storage
from hpc_train.data.shards.encoded import EncodedWriter
from hpc_train.data.shards.names import check_space, default_shards
from hpc_train.data.shards.spooled import SpooledWriter
from hpc_train.data.shards.streamed import StreamedSplit
from hpc_train.errors import UserError
from hpc_train.files.whole import atomic_path, writing
from hpc_train.prepare.images.files import BadImage, Treatment, limit_pixels, prepare_image
from hpc_train.prepare.images.folder import find_images
from hpc_train.prepare.images.lists import shown
from hpc_train.units import size

LEFT_OUT = "left-out.txt"
_NAMED = 5
# The images in one job of a thread, and the number of jobs that wait for each thread.
_JOB, _AHEAD = 8, 2
_PROBED = 256


def prepare_images(options, output: Path) -> list[str]:
    """Write the shards of all splits below `options.input`, and print what was done with the images.

    Every image is decoded completely. Shards get their names when all splits are written: after an error or an
    interruption, older shards are unchanged.

    Returns:
        The names of the splits.

    Raises:
        UserError: there are no images, or bad ones that may not be left out, or the shards cannot be written.
    """
    # Otherwise several threads would load Pillow's formats at once.
    Image.init()
    limit_pixels(options.max_pixels)
    found = find_images(options.input, options.lists, options.class_names, options.test_fraction)
    if found.asides:
        say(f"skipped, because they are not named like images or have no class: {_some(found.asides)}")
    with ExitStack() as stack:
        works = [_Split(options, found, split, output) for split in found.splits]
        if not options.max_side and options.compression == "none":
            existing = next(folder for folder in (output, *output.absolute().parents) if os.path.exists(folder))
            check_space(existing, sum(work.size for work in works))
        try:
            for work in works:
                stack.enter_context(work.stream)
                work.write()
        except KeyboardInterrupt:
            raise KeyboardInterrupt(f"nothing in {output} was changed; give the same command again") from None
        bad = [(path, error) for work in works for path, error in work.bad]
        if bad and options.bad == "error":
            total = sum(len(images.paths) for images in found.splits.values())
            raise UserError(
                f"{options.input}: {len(bad)} of {total} images are bad ({_counted(bad)}): {_named(bad)}; "
                "fix them, or leave them out with --bad skip"
            )
        for work in works:
            if not work.stream.samples:
                raise UserError(f"{options.input}: no good image is left for {work.split}; fix the bad images")
            work.stream.finish()
        for work in works:
            work.report(work.stream.publish())
        _name_left_out(output, bad)
    return list(found.splits)


class _Split:
    """A split whose shards are being written."""

    def __init__(self, options, found, split, output):
        self.options, self.split, self.output = options, split, output
        self.images, self.classes = found.splits[split], found.classes
        self.treatment = Treatment(options.size, options.max_side, options.quality, options.min_side)
        # Bad images as (path, BadImage), and how many images had each change.
        self.bad, self.changes, self._bytes = [], Counter(), 0
        count, dtype = len(self.images.paths), self.images.targets.dtype
        storage = Storage(options.compression)
        if options.size:
            sample = 3 * options.size**2
            shape = options.size, options.size, 3
            self._open = lambda path, attributes: SpooledWriter(path, shape, np.uint8, dtype, attributes, storage)
        else:
            sample = self._mean_size()
            self._open = lambda path, attributes: EncodedWriter(path, dtype, attributes)
        # Bytes of all samples, about.
        self.size = count * sample
        names = {
            "classes": found.classes,
            "class_names": list(found.class_names),
            "source": f"images of {shown(options.input.resolve().name)}, shuffled with seed {options.seed}",
        }
        shards = default_shards(count, sample) if options.shards is None else options.shards
        self.stream = StreamedSplit(output, split, count, shards, self._open, names)

    def write(self) -> None:
        """Decode all images and write the good ones; after a bad one that is an error, only decode."""
        paths, targets = self.images.paths, self.images.targets
        progress = ProgressLine(self.split, len(paths), unit="images")
        threads = len(os.sched_getaffinity(0))
        pool = ThreadPoolExecutor(threads)
        try:
            # Pillow warns about damaged EXIF data, and about images that are large but allowed.
            with warnings.catch_warnings():
                warnings.filterwarnings("ignore", module="PIL")
                for places, results in self._results(pool, _AHEAD * threads):
                    good = [place for place, result in enumerate(results) if not isinstance(result, BadImage)]
                    self.bad += [
                        (paths[place], result)
                        for place, result in zip(places, results, strict=True)
                        if isinstance(result, BadImage)
                    ]
                    size = sum(memoryview(results[place].data).nbytes for place in good)
                    if not self.bad or self.options.bad == "skip":
                        self.stream.write([results[place].data for place in good], targets[places[good]])
                        self._bytes += size
                    for place in good:
                        self.changes.update(results[place].changes)
                    progress.add(len(places), size)
        finally:
            pool.shutdown(cancel_futures=True)
            progress.close()
        self.bad.sort(key=lambda one: one[0])

    def _results(self, pool, ahead):
        """(places, results) of one job after another, in the shuffled order; a result is a Prepared or a BadImage."""
        count = len(self.images.paths)
        waiting = deque()
        for start in range(0, count, _JOB):
            order = np.arange(start, min(start + _JOB, count))
            places = permute(order, count, self.options.seed, 0)
            waiting.append((places, pool.submit(self._prepare, places)))
            if len(waiting) > ahead:
                places, job = waiting.popleft()
                yield places, job.result()
        for places, job in waiting:
            yield places, job.result()

    def _prepare(self, places):
        results = []
        for place in places:
            try:
                results.append(prepare_image(self._path(place), self.treatment))
            except BadImage as error:
                results.append(error)
        return results

    def _path(self, place):
        return os.path.join(self.options.input, self.images.paths[place])

    def _mean_size(self):
        count, sizes = len(self.images.paths), []
        for place in permute(np.arange(min(count, _PROBED)), count, 0, 0):
            try:
                sizes.append(os.stat(self._path(place)).st_size)
            except OSError:
                # It will be reported as bad.
                sizes.append(0)
        return sum(sizes) // len(sizes)

    def report(self, paths) -> None:
        """Print what was written, what was changed and what was left out."""
        side, samples = self.options.size, self.stream.samples
        kind = f"samples of {(side, side, 3)} uint8" if side else f"JPEG images, {size(self._bytes)}"
        say(f"{self.split}: {samples} {kind}, {self.classes} classes, {len(paths)} shards in {self.output}")
        if self.changes:
            what = "turned into plain RGB" if side else "encoded again as RGB JPEG"
            say(f"{self.split}: {what}: {', '.join(f'{n} {kind}' for kind, n in self.changes.most_common())}")
        if self.bad:
            counts = _counted(self.bad)
            say(f"{self.split}: left out {len(self.bad)} bad images ({counts}): {_named(self.bad)}", sys.stderr)


def _name_left_out(output, bad):
    path, remedy = output / LEFT_OUT, "prepare again with another --output"
    if not bad:
        with writing(path, remedy):
            path.unlink(missing_ok=True)
        return
    with atomic_path(path, remedy) as temporary:
        temporary.write_text("".join(f"{shown(name)}\t{error}\n" for name, error in bad), "utf-8")
    say(f"left out: {len(bad)} images, all named in {path}", sys.stderr)


def _counted(bad):
    kinds = Counter(error.kind for _, error in bad)
    return ", ".join(f"{count} {kind}" for kind, count in kinds.most_common())


def _named(bad):
    return _some([f"{shown(path)} ({error})" for path, error in bad])


def _some(names):
    more = f" and {len(names) - _NAMED} more" if len(names) > _NAMED else ""
    return ", ".join(map(shown, names[:_NAMED])) + more
