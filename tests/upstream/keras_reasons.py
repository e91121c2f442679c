"""Which of Keras's own tests pass plain and not wrapped, and why."""

_SWAP = "swap_ema_weights_test::SwapEMAWeightsTest"

REASONS = {
    f"{_SWAP}::test_swap_ema_weights_with_tf_distribute": "tf.distribute averages too: refused by name",
}

# On more than one rank only.
REASONS_OF_RANKS = {
    "optimizer_sparse_test::OptimizerSparseTest::test_sparse_gradients_adafactor": (
        "the mean has each rank's rows, so rows repeat; given repeated rows, plain Keras fails this test alike"
    ),
}
