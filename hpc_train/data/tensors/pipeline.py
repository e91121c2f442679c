"""From the loader to `fit`: batches without a copy, through `tf.data` where it has work to do or there is a device."""

from collections.abc import Callable, Generator, Iterable, Iterator
from itertools import islice, repeat

import numpy as np
import tensorflow as tf

from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.reading.loader import Loader
from hpc_train.data.reading.read_ahead import ReadAhead
from hpc_train.data.reading.reader import Reader
from hpc_train.data.tensors import handed
from hpc_train.data.tensors.delivery import Delivery
from hpc_train.data.tensors.field_transform import FieldTransform

# Batches on their way to the device; large batches are groups of one.
_PREFETCH = 1
# Batches that are transformed at the same time, and the copies of each in memory besides the reader's.
_TRANSFORMED, _COPIES = 2, 3


class Input:
    """This rank's batches for `fit` and `evaluate`, and the error of reading them.

    Through `tf.data` an exception in a reading thread becomes an error of TensorFlow's own; `error` keeps the real one.
    For encoded images use `jpeg_input.JpegInput`, which has the same methods.

    Args:
        reader: see `data.reading.read_ahead.ReadAhead`.
        threads: see `ReadAhead`.
        read_ahead: see `ReadAhead`.
        device: where the batches should be, such as "/gpu:0"; None leaves them in host memory.
        transform: applied to samples after they are read.
        deliver: makes of the arrays of a batch what `fit` gets; None where that is (inputs, targets) as they are.
    """

    def __init__(
        self,
        reader: Reader,
        threads: int | None = None,
        read_ahead: int | None = None,
        device: str | None = None,
        transform: FieldTransform | None = None,
        deliver: Delivery | None = None,
    ):
        self.reader, self.threads, self.read_ahead, self.device = reader, threads, read_ahead, device
        self.transform, self._deliver = transform, deliver
        # Traced once for all passes.
        self._vary = tf.function(transform.training) if transform else None
        self._error: Exception | None = None

    @property
    def error(self) -> Exception | None:
        """What went wrong, once TensorFlow has reported an error."""
        return self._error

    def training(self, plan: TrainPlan, rank: int, epoch: int, position: int, steps: int) -> tf.data.Dataset:
        """Batches of `steps` steps that begin `position` samples into `epoch` and continue into the next epochs."""
        ahead, transform = self.reading(plan.batch_size), self.transform
        start = lambda: ahead.training(plan, rank, epoch, position, steps)  # noqa: E731
        if not (transform and transform.varies):
            return self._dataset(start, ahead.together, steps, plan.batch_size)

        def give(loader: Loader) -> Iterator[tuple[np.ndarray, ...]]:
            numbers = epochs(plan, epoch, position)
            for arrays in iter(loader.next, None):
                steps = zip(islice(numbers, len(loader.given)), loader.given, strict=True)
                drawn = np.stack([transform.draw(plan.seed, number, samples) for number, samples in steps])
                yield (*arrays, drawn) if ahead.together > 1 else (*(array[0] for array in arrays), drawn[0])

        return self._dataset(start, ahead.together, steps, plan.batch_size, give)

    def handed(self, plan: TrainPlan, rank: int, epoch: int, position: int, steps: int) -> Generator | None:
        """The batches of `training` one by one, without `tf.data`.

        None where `tf.data` has work to do: it computes with TensorFlow beside the step before, copies to a device, or
        delivers large batches without a copy.
        """
        ahead = self.reading(plan.batch_size)
        if ahead.together == 1 or self.device or self.transform or (self._deliver and self._deliver.scales):
            return None
        return handed.batches(ahead.training(plan, rank, epoch, position, steps), self._deliver)

    def validation(self, plan: ValidationPlan, rank: int) -> tf.data.Dataset:
        """One pass over this rank's share; batches may be short."""
        ahead = self.reading(plan.batch_size)
        return self._dataset(lambda: ahead.validation(plan, rank), ahead.together, plan.steps, None)

    def reading(self, batch_size: int) -> ReadAhead:
        """How batches of this size are read."""
        return ReadAhead(self.reader, batch_size, self.threads, self.read_ahead)

    def memory(self, plan: TrainPlan) -> int:
        """Most bytes of samples in this process's memory while `fit` trains by the plan."""
        ahead = self.reading(plan.batch_size)
        # `tf.data` holds the prefetched batches and one more while it delivers it, and `InputWait` the next one.
        held = ahead.memory(plan.order) + (_PREFETCH + 2) * ahead.group_bytes
        batch = plan.batch_size * self.reader.sample_bytes
        varied = self.transform is not None and self.transform.varies
        return held + varied * _TRANSFORMED * (1 + _COPIES) * batch

    def _dataset(
        self, start: Callable[[], Loader], together: int, steps: int, batch: int | None, give: Callable | None = None
    ) -> tf.data.Dataset:
        """Batches of a loader's groups; give: yields elements of the loader and random numbers for the transform."""
        catalogue, transform = self.reader.catalogue, self.transform
        lead = () if together == 1 else (None,)
        shapes = [(part.shape, part.dtype) for part in catalogue.parts]
        if give:
            shapes.append(((transform.NUMBERS,), np.dtype(np.int32)))
        signature = tuple(tf.TensorSpec((*lead, batch, *shape), dtype.newbyteorder("=")) for shape, dtype in shapes)
        plain = lambda loader: loader if together == 1 else iter(loader.next, None)  # noqa: E731
        data = self._generate(start, give or plain, signature)
        if together > 1:
            data = data.unbatch()
        if give:
            data = data.map(self._vary, _TRANSFORMED, deterministic=True)
        elif transform:
            data = data.map(transform.validation, _TRANSFORMED, deterministic=True)
        if self._deliver:
            data = data.map(self._deliver, _TRANSFORMED, deterministic=True)
        threads = 2 + _TRANSFORMED * bool(transform or self._deliver)
        return self._finish(data, steps, threads, _PREFETCH if together == 1 or self.device else 4)

    def _generate(self, start: Callable[[], Loader], give: Callable[[Loader], Iterable], signature) -> tf.data.Dataset:
        """The elements that `give` yields from a loader, which each pass starts and closes at its end."""

        def read() -> Iterator:
            loader = start()
            try:
                yield from give(loader)
            except Exception as error:
                self._error = error
                raise
            finally:
                loader.close()

        return tf.data.Dataset.from_generator(read, output_signature=signature)

    def _finish(self, data: tf.data.Dataset, steps: int, threads: int, prefetch: int) -> tf.data.Dataset:
        """`steps` batches, prepared by a thread pool of their own, some of them prefetched."""
        options = tf.data.Options()
        options.autotune.enabled = False
        options.threading.private_threadpool_size = threads
        data = data.apply(tf.data.experimental.assert_cardinality(steps)).with_options(options)
        if self.device:
            return data.apply(tf.data.experimental.prefetch_to_device(self.device, prefetch))
        return data.prefetch(prefetch)


def epochs(plan: TrainPlan, epoch: int, position: int) -> Iterator[int]:
    """The epoch of each step, one after the other."""
    while True:
        yield from repeat(epoch, plan.steps(position))
        epoch, position = epoch + 1, 0
