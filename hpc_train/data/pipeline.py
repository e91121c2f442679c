"""From the loader to `tf.data`: batches as `fit` takes them, without a copy, on the device where there is one."""

from collections.abc import Callable, Iterable, Iterator

import tensorflow as tf

from hpc_train.data.loader import Loader
from hpc_train.data.plan import TrainPlan, ValidationPlan
from hpc_train.data.read_ahead import ReadAhead
from hpc_train.data.reader import Reader

# Batches on their way to the device; each is a group of its own where batches are large.
_PREFETCH = 1


class Input:
    """This rank's batches, as `fit` and `evaluate` take them, and what went wrong while reading them.

    reader, threads, read_ahead: see `data.read_ahead.ReadAhead`; device: where the batches should lie, e.g. "/gpu:0";
    None leaves them in host memory.

    TensorFlow turns an exception in a reading thread into an error of its own; `error` keeps the real one. Encoded
    images are for `data.jpeg_input.JpegInput`, which has the same surface.
    """

    def __init__(self, reader: Reader, threads: int | None = None, read_ahead: int | None = None, device=None):
        self.reader, self.threads, self.read_ahead, self.device = reader, threads, read_ahead, device
        self._error: Exception | None = None

    @property
    def error(self) -> Exception | None:
        """What went wrong, once TensorFlow has said that something did."""
        return self._error

    def training(self, plan: TrainPlan, rank: int, epoch: int, position: int, steps: int) -> tf.data.Dataset:
        """Batches of `steps` steps from `position` samples into `epoch`, going on into the epochs after it."""
        ahead = self.reading(plan.batch_size)
        start = lambda: ahead.training(plan, rank, epoch, position, steps)  # noqa: E731
        return self._dataset(start, ahead.together, steps, plan.batch_size)

    def validation(self, plan: ValidationPlan, rank: int) -> tf.data.Dataset:
        """One pass over this rank's share; batches may be short."""
        ahead = self.reading(plan.batch_size)
        return self._dataset(lambda: ahead.validation(plan, rank), ahead.together, plan.steps, None)

    def reading(self, batch_size: int) -> ReadAhead:
        """How batches of this size are read."""
        return ReadAhead(self.reader, batch_size, self.threads, self.read_ahead)

    def memory(self, plan: TrainPlan) -> int:
        """Bytes of samples in this process's memory at most while `fit` trains by the plan."""
        ahead = self.reading(plan.batch_size)
        # TensorFlow holds those that it prefetched, one while it hands it over, and `InputWait` the next one.
        return ahead.memory(plan.order) + (_PREFETCH + 2) * ahead.group_bytes

    def _dataset(self, start: Callable[[], Loader], together: int, steps: int, batch: int | None) -> tf.data.Dataset:
        catalogue = self.reader.catalogue
        lead = () if together == 1 else (None,)
        signature = tuple(
            tf.TensorSpec((*lead, batch, *shape), dtype.newbyteorder("="))
            for shape, dtype in (
                (catalogue.input_shape, catalogue.input_dtype),
                (catalogue.target_shape, catalogue.target_dtype),
            )
        )
        give = lambda loader: loader if together == 1 else iter(loader.next, None)  # noqa: E731
        data = self._generate(start, give, signature)
        if together > 1:
            data = data.unbatch()
        return self._finish(data, steps, 2, _PREFETCH if together == 1 or self.device else 4)

    def _generate(self, start: Callable[[], Loader], give: Callable[[Loader], Iterable], signature) -> tf.data.Dataset:
        """What `give` takes from a loader, which is started with every pass and closed at its end."""

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
        """`steps` batches, prepared by a thread pool of their own, some of them on their way."""
        options = tf.data.Options()
        options.autotune.enabled = False
        options.threading.private_threadpool_size = threads
        data = data.apply(tf.data.experimental.assert_cardinality(steps)).with_options(options)
        if self.device:
            return data.apply(tf.data.experimental.prefetch_to_device(self.device, prefetch))
        return data.prefetch(prefetch)
