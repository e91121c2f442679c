"""Which of Keras's own tests pass plain and not wrapped, and why."""

REASONS = {
    "swap_ema_weights_test::test_swap_ema_weights_with_tf_distribute": "tf.distribute averages too: refused by name",
}
