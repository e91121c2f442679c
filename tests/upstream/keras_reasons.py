"""Which of Keras's own tests pass plain and not wrapped, and why."""

_SWAP = "swap_ema_weights_test::SwapEMAWeightsTest"

REASONS = {
    f"{_SWAP}::test_swap_ema_weights_with_tf_distribute": "tf.distribute averages too: refused by name",
}
