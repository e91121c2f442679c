"""Which of Horovod's own tests fail, and why: a test that is not here must pass, and one that is here must not."""

_KERAS2 = "uses what Keras 3 removed"

REASONS = {
    "test_tensorflow2_keras::test_legacy_optimizer": f"{_KERAS2}: keras.optimizers.legacy",
    "test_tensorflow::test_horovod_syncbn_cpu": f"{_KERAS2}: BatchNormalization(fused=)",
}
