"""TFRecord, TensorFlow's own format: records one after the other, read with `tf.data` and a shuffle buffer."""

from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from hpc_train.bench.input.formats.copied import FILE_BYTES
from hpc_train.bench.input.formats.stream import BUFFER, Stream
from hpc_train.bench.input.other_readers import Batch

_FEATURES = {name: tf.io.FixedLenFeature((), tf.string) for name in ("input", "target")}


class TfRecord(Stream):
    """Records of `tf.train.Example`, parsed a batch at once; images are decoded by TensorFlow one by one."""

    def write(self) -> None:
        """As `Stream.write`."""
        try:
            self._write()
        except tf.errors.OpError as error:
            raise OSError(error.message) from error

    def _write(self) -> None:
        files, writer, written = 0, None, FILE_BYTES
        for sample, target in self.samples():
            if written >= FILE_BYTES:
                if writer:
                    writer.close()
                writer = tf.io.TFRecordWriter(str(self.folder / f"{files:05}.tfrecord"))
                files, written = files + 1, 0
            values = zip(_FEATURES, (sample, target), strict=True)
            features = {name: tf.train.Feature(bytes_list=tf.train.BytesList(value=[one])) for name, one in values}
            writer.write(tf.train.Example(features=tf.train.Features(feature=features)).SerializeToString())
            written += len(sample)
        writer.close()

    def read(self, shuffled: bool) -> Iterator[Batch]:
        """As `Stream.read`."""
        data = tf.data.Dataset.list_files(str(self.folder / "*.tfrecord"), shuffled, self.seed)
        data = data.interleave(tf.data.TFRecordDataset, cycle_length=max(1, self.threads) if shuffled else 1)
        if shuffled:
            data = data.shuffle(BUFFER, self.seed)
        # Dropping the rest of an epoch would need its length; the next one goes on in the same batch.
        data = data.repeat().batch(self.batch_size).map(self._parsed, self.threads)
        options = tf.data.Options()
        options.threading.private_threadpool_size = self.threads
        return iter(data.prefetch(tf.data.AUTOTUNE).with_options(options))

    def _parsed(self, records: tf.Tensor) -> tuple[tf.Tensor, tf.Tensor]:
        found = tf.io.parse_example(records, _FEATURES)
        return self._values(found["input"], 0), self._values(found["target"], 1)

    def _values(self, strings: tf.Tensor, number: int) -> tf.Tensor:
        part = self.catalogue.parts[number]
        if self.catalogue.encoding and number == 0:
            # The pixels of other decoders; by default TensorFlow's are less exact.
            decode = lambda file: tf.io.decode_jpeg(file, 3, dct_method="INTEGER_ACCURATE")  # noqa: E731
            return tf.map_fn(decode, strings, fn_output_signature=tf.uint8)
        dtype = part.dtype.newbyteorder("=")
        # Wide unsigned numbers are no type that it decodes.
        known = dtype.str.replace("u", "i") if dtype in (np.uint32, np.uint64) else dtype
        values = tf.bitcast(tf.io.decode_raw(strings, np.dtype(known)), dtype)
        return tf.reshape(values, (self.batch_size, *part.shape))
