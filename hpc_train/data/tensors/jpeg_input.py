"""Encoded images for `fit`: read and decoded in parallel, in the order of the plan."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import suppress
from functools import cached_property

import numpy as np
import tensorflow as tf

from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.reading.encoded_reader import EncodedReader
from hpc_train.data.reading.loader import Loader
from hpc_train.data.reading.whole_images import WholeImageReader, are_whole
from hpc_train.data.tensors.jpeg import DecodedReader, seeds, training_transform, validation_transform
from hpc_train.data.tensors.pipeline import Input, epochs
from hpc_train.errors import UserError

# Batches that are decoded ahead of the step that needs them, and those that other stages hold meanwhile.
_PREFETCH, _PASSING = 2, 4


class JpegInput(Input):
    """This rank's batches of images, uint8 (b, size, size, 3), with the size of the catalogue's input_shape.

    Random numbers come only from (seed, epoch, sample number), so that they are the same on any number of ranks and
    after a resume.

    Args:
        reader: reads the files.
        threads: threads that read; the same number decodes.
        read_ahead: see `ReadAhead`.
        device: where the batches should be, see `Input`.
        crop: the part of an image to train on, see `jpeg.training_transform`.
    """

    def __init__(self, reader: EncodedReader, threads=None, read_ahead=None, device=None, crop: str = "inception"):
        super().__init__(reader, threads, read_ahead, device)
        self._crop = crop
        size, jpeg = reader.catalogue.input_shape[0], tf.TensorSpec((), tf.string)
        # These functions are traced once for all passes.
        self._cut = tf.function(training_transform(size, crop), [jpeg, tf.TensorSpec((2,), tf.int64)])
        self._centre = tf.function(validation_transform(size), [jpeg])
        self._given: deque[np.ndarray] = deque()

    @cached_property
    def error(self) -> Exception | None:
        """What went wrong, once TensorFlow has reported an error: also which image could not be decoded."""
        # TensorFlow does not name the image. It is among those delivered last.
        samples = np.concatenate([[], *self._given]).astype(np.int64)
        if self._whole and self._whole.error:
            return self._whole.error
        return self._error or DecodedReader(self.reader).first_undecodable(samples)

    def training(self, plan: TrainPlan, rank: int, epoch: int, position: int, steps: int) -> tf.data.Dataset:
        """Batches of `steps` steps that begin `position` samples into `epoch` and continue into the next epochs."""
        if self._crop == "centre" and self._whole:
            return self._whole.training(plan, rank, epoch, position, steps)
        ahead = self.reading(plan.batch_size)

        def give(loader: Loader) -> Iterator[tuple]:
            for number, (files, targets, samples) in zip(epochs(plan, epoch, position), _steps(loader), strict=False):
                self._note(samples, plan.batch_size)
                yield files, targets, seeds(plan.seed, number, samples)

        start = lambda: ahead.training(plan, rank, epoch, position, steps)  # noqa: E731
        decode = lambda jpeg, target, seed: (self._cut(jpeg, seed), target)  # noqa: E731
        data = self._decoded(start, give, tf.TensorSpec((None, 2), tf.int64), decode)
        return self._finish(data.batch(plan.batch_size, drop_remainder=True), steps, ahead.threads + 2, _PREFETCH)

    def handed(self, plan: TrainPlan, rank: int, epoch: int, position: int, steps: int) -> Generator | None:
        """As `Input.handed`; None where TensorFlow decodes."""
        if self._crop == "centre" and self._whole:
            return self._whole.handed(plan, rank, epoch, position, steps)
        return None

    def validation(self, plan: ValidationPlan, rank: int) -> tf.data.Dataset:
        """One pass over this rank's share; batches may be short. Padding is one image."""
        if self._whole:
            return self._whole.validation(plan, rank)
        ahead = self.reading(plan.batch_size)

        def give(loader: Loader) -> Iterator[tuple]:
            for files, targets, samples in _steps(loader):
                self._note(samples, plan.batch_size)
                yield files, targets, samples

        start = lambda: ahead.validation(plan, rank)  # noqa: E731
        decode = lambda jpeg, target, sample: (self._centre(jpeg), target)  # noqa: E731
        samples = sum(plan.valid(step, rank) for step in range(plan.steps))
        data = self._decoded(start, give, tf.TensorSpec((None,), tf.int64), decode).take(samples)
        none = tf.nest.map_structure(lambda spec: tf.zeros([1, *spec.shape], spec.dtype), data.element_spec)
        padding = tf.data.Dataset.from_tensors(none).repeat(plan.steps - plan.real_steps(rank))
        return self._finish(data.batch(plan.batch_size).concatenate(padding), plan.steps, ahead.threads + 2, _PREFETCH)

    def memory(self, plan: TrainPlan) -> int:
        """Bytes of samples, files and images, in this process's memory while `fit` trains by the plan.

        An estimate, since files differ in size.
        """
        if self._crop == "centre" and self._whole:
            return self._whole.memory(plan)
        ahead = self.reading(plan.batch_size)
        images = (_PREFETCH + _PASSING) * plan.batch_size + 2 * ahead.threads
        # As files: those read ahead, and those that tf.data separates.
        return ahead.memory(plan.order) + 2 * ahead.group_bytes + images * self.reader.catalogue.sample_bytes

    @cached_property
    def _whole(self) -> Input | None:
        """For images that need no more than decoding, as their size is the wanted one; TensorFlow has no part in it."""
        # Whoever reads all of them names what is damaged.
        with suppress(UserError):
            if are_whole(self.reader):
                reader = WholeImageReader(self.reader, DecodedReader(self.reader).image)
                return Input(reader, self.threads, self.read_ahead, self.device)
        return None

    def _decoded(self, start, give: Callable[[Loader], Iterable], more: tf.TensorSpec, decode) -> tf.data.Dataset:
        """The samples of a loader's steps one by one, decoded."""
        catalogue = self.reader.catalogue
        dtype = catalogue.target_dtype.newbyteorder("=")
        signature = tf.TensorSpec((None,), tf.string), tf.TensorSpec((None, *catalogue.target_shape), dtype), more
        data = self._generate(start, give, signature).unbatch()
        return data.map(decode, self.reading(1).threads, deterministic=True)

    def _note(self, samples: np.ndarray, batch_size: int) -> None:
        self._given.append(samples)
        held = _PREFETCH + _PASSING + 2 * self.reading(batch_size).threads // batch_size
        while len(self._given) > held:
            self._given.popleft()


def _steps(loader: Loader) -> Iterator[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """(files, targets, sample numbers) of one step after the other."""
    for files, targets in iter(loader.next, None):
        yield from zip(files, targets, loader.given, strict=True)
