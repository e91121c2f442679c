"""Which of Horovod's own tests fail, and why: a test that is not here must pass, and one that is here must not."""

_TF1 = "uses TensorFlow 1"
_KERAS2 = "uses what Keras 3 removed"
_GPU = "needs a GPU"

REASONS = {
    "test_tensorflow2_keras::test_legacy_optimizer": f"{_KERAS2}: keras.optimizers.legacy",
}
