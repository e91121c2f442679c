"""What each rank runs to test a build: all-reduces with known results, which rank 0 prints as a JSON line."""

import json
import sys

MARK = "hpc-train-proof "


def main() -> None:
    """Run the all-reduces; print the results on rank 0."""
    import horovod.tensorflow as hvd
    import tensorflow as tf

    from hpc_train.parallel.cuda import list_gpus

    hvd.init()
    gpus = list_gpus()
    on_gpu = hvd.nccl_built() and len(gpus) >= hvd.local_size()
    if on_gpu:
        tf.config.set_visible_devices(gpus[hvd.local_rank()], "GPU")
    with tf.device("GPU:0" if on_gpu else "CPU:0"):
        # Rank r holds (r+1)·[0, 1, 2, 3], and another 1 MB, so that more than one packet is sent.
        small = hvd.allreduce(tf.range(4, dtype=tf.float32) * (hvd.rank() + 1), op=hvd.Sum)
        large = hvd.allreduce(tf.fill([1 << 18], float(hvd.rank() + 1)), op=hvd.Average)
    if hvd.rank() == 0:
        result = {
            "size": hvd.size(),
            "sum": small.numpy().tolist(),
            "mean": sorted({float(value) for value in large.numpy()}),
            "mpi": bool(hvd.mpi_built()),
            "gloo": bool(hvd.gloo_built()),
            "nccl": bool(hvd.nccl_built()),
            "gpus": len(gpus),
            "on_gpu": on_gpu,
        }
        # In one write: otherwise the launcher may put its rank tag into the middle of the line.
        sys.stdout.write(MARK + json.dumps(result) + "\n")


if __name__ == "__main__":
    main()
