"""Run on 3 ranks by test_scores.py: each check asserts on every rank; rank 0 writes what happened as JSON."""

from checks import write_outcomes

from hpc_train import parallel

world = parallel.init(seed=3)

import horovod.tensorflow as hvd  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import tensorflow as tf  # noqa: E402

from hpc_train.losses import PixelCrossEntropy  # noqa: E402
from hpc_train.metrics.label_maps import SampleIoU, SegmentationScores  # noqa: E402
from hpc_train.parallel.collectives import sum_arrays  # noqa: E402

DRAW = np.random.default_rng(5)
INPUTS = DRAW.normal(size=(11, 6, 7, 2)).astype("float32")
TRUTH = DRAW.choice([0, 1, 2, 255], (11, 6, 7), p=[0.8, 0.05, 0.1, 0.05]).astype("uint8")
# Six maps, four and one, in batches of two; the other steps only keep their number equal.
MINE = np.split(np.arange(11), [6, 10])[world.rank]
REAL_STEPS, STEPS = (3, 2, 1)[world.rank], 4


LOSS = PixelCrossEntropy((0.5, 20.0, 5.0), ignore_class=255)
MODEL = keras.Sequential([keras.Input((6, 7, 2)), keras.layers.Conv2D(3, 3, padding="same", name="logits")])
MODEL.compile(
    parallel.DistributedOptimizer(keras.optimizers.SGD(0.0)),
    LOSS,
    metrics=[SegmentationScores(3, ("background", "tc", "ar"), ignore_class=255), SampleIoU(3, ignore_class=255)],
    auto_scale_loss=False,
)


def maps(rows, pad):
    data = tf.data.Dataset.from_tensor_slices((INPUTS[rows], TRUTH[rows])).batch(2)
    padding = tf.data.Dataset.from_tensor_slices((INPUTS[:2], TRUTH[:2])).batch(2).repeat(pad)
    return data.concatenate(padding)


def wanted():
    """The scores of all maps in one, and the mean over maps of the mean over classes, by NumPy."""
    predicted = np.argmax(MODEL(INPUTS), axis=-1)
    counts = TRUTH != 255

    def of(maps):
        result = {}
        for k, name in enumerate(("background", "tc", "ar")):
            truth, found = (TRUTH[maps] == k)[counts[maps]], (predicted[maps] == k)[counts[maps]]
            hit, true, positive = (truth & found).sum(), truth.sum(), found.sum()
            union = true + positive - hit
            result[f"iou_{name}"] = hit / union if union else 1.0
            result[f"precision_{name}"] = hit / positive if positive else 0.0
            result[f"recall_{name}"] = hit / true if true else 0.0
        result["mean_iou"] = np.mean([value for key, value in result.items() if key.startswith("iou")])
        return result

    right = (predicted == TRUTH)[counts]
    samples = np.mean([of(slice(i, i + 1))["mean_iou"] for i in range(len(TRUTH))])
    return {**of(slice(None)), "accuracy": right.mean(), "sample_iou": samples}


def check_scores(got):
    want = wanted()
    loss = got.pop("loss")
    assert got.keys() == want.keys(), got.keys() ^ want.keys()
    # Every figure of the matrix to the last bit but one; nothing of single precision in the samples' mean.
    for key, value in want.items():
        np.testing.assert_allclose(got[key], value, rtol=1e-15 if key != "sample_iou" else 1e-13, err_msg=key)
    np.testing.assert_allclose(loss, LOSS(TRUTH, MODEL(INPUTS)), rtol=1e-5)


def uneven_shares_give_exactly_the_figures_of_one_rank():
    check_scores(parallel.evaluate(MODEL, maps(MINE, STEPS - REAL_STEPS), REAL_STEPS))


def an_epochs_logs_have_every_score_of_all_ranks():
    data = maps(MINE, 3 - REAL_STEPS)
    callbacks = parallel.callbacks(validation_steps=REAL_STEPS)
    history = MODEL.fit(data, validation_data=maps(MINE, 1), callbacks=callbacks, verbose=0, shuffle=False)
    logs = {key: values[0] for key, values in history.history.items()}
    check_scores({key.removeprefix("val_"): value for key, value in logs.items() if key.startswith("val_")})
    assert {f"val_{key}" for key in logs if not key.startswith("val_")} == {key for key in logs if "val_" in key}
    assert parallel.gather_objects(logs) == [logs] * world.size


def sums_of_1e14_pixels_are_exact_to_the_pixel():
    local = np.array([[10**14 + world.rank, 0], [0, 1]], "float64")
    metric = SegmentationScores(2)
    metric.matrix.assign(local)
    [total] = sum_arrays([np.asarray(variable) for variable in metric.variables], "hpc_train.test.large")
    np.testing.assert_array_equal(total, [[3 * 10**14 + 3, 0], [0, 3]])


if __name__ == "__main__":
    write_outcomes(
        [check for name, check in list(globals().items()) if name.count("_") >= 3 and callable(check)], world
    )
    hvd.shutdown()
