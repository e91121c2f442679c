"""Transfer learning: what is kept of a trained model, what is replaced, what is frozen."""

from types import SimpleNamespace

import numpy as np
import pytest
from launch import launch

from hpc_train.errors import UserError
from hpc_train.training.transfer import TransferOptions, build

keras = pytest.importorskip("keras")


def data(shape=(8, 8, 1), classes=5, dtype="uint8"):
    """What `build` asks of a catalogue."""
    return SimpleNamespace(input_shape=shape, input_dtype=np.dtype(dtype), classes=classes, files=["train.h5"])


@pytest.fixture
def trained(tmp_path):
    """Path of a saved classifier of 8 x 8 images into 5 classes, with a softmax, and the model."""
    inputs = keras.Input((8, 8, 1))
    x = keras.layers.Conv2D(4, 3, activation="relu", name="stem_conv")(inputs)
    x = keras.layers.BatchNormalization(name="stem_bn")(x)
    x = keras.layers.Dense(6, activation="relu", name="hidden")(keras.layers.Flatten()(x))
    model = keras.Model(inputs, keras.layers.Dense(5, activation="softmax", name="classes")(x), name="small")
    model.save(tmp_path / "small.keras")
    return tmp_path / "small.keras", model


def images(*shape):
    return np.random.default_rng(0).integers(0, 256, shape).astype("uint8")


def test_with_the_same_classes_the_model_is_the_same_up_to_its_softmax(trained):
    path, model = trained
    logits = np.asarray(build(TransferOptions(path), data())(images(7, 8, 8, 1)), "float64")
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, np.asarray(model(images(7, 8, 8, 1))), rtol=1e-4, atol=1e-6)


def test_with_other_classes_or_when_asked_the_head_is_new_and_the_trunk_is_not(trained):
    path, model = trained
    for options, classes in ((TransferOptions(path), 3), (TransferOptions(path, new_head=True), 5)):
        built = build(options, data(classes=classes))
        assert built.output_shape == (None, classes)
        assert built.get_layer("logits").dtype == "float32"
        for name in ("stem_conv", "stem_bn", "hidden"):
            for mine, theirs in zip(
                built.get_layer(name).get_weights(), model.get_layer(name).get_weights(), strict=True
            ):
                np.testing.assert_array_equal(mine, theirs)
        if classes == 5:
            assert not np.array_equal(built.get_layer("logits").get_weights()[0], model.layers[-1].get_weights()[0])


def test_an_application_whose_head_is_a_convolution_is_taken_too(tmp_path):
    model = keras.applications.MobileNetV3Small((32, 32, 3), weights=None, classes=4, include_preprocessing=False)
    model.save(tmp_path / "app.keras")
    kept = build(TransferOptions(tmp_path / "app.keras"), data((32, 32, 3), 4))
    logits = np.asarray(kept(images(2, 32, 32, 3)), "float64")
    shares = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    np.testing.assert_allclose(shares, np.asarray(model(images(2, 32, 32, 3).astype("float32"))), rtol=1e-3)
    assert build(TransferOptions(tmp_path / "app.keras"), data((32, 32, 3), 7)).output_shape == (None, 7)


def test_label_maps_keep_their_size(tmp_path):
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    keras.Model(inputs, keras.layers.Conv2D(3, 1, activation="softmax")(x)).save(tmp_path / "maps.keras")
    assert build(TransferOptions(tmp_path / "maps.keras"), data((8, 8, 2), 2)).output_shape == (None, 8, 8, 2)


def test_a_head_of_one_dense_layer_for_all_pixels_or_without_bias_is_kept(tmp_path):
    inputs = keras.Input((8, 8, 2))
    x = keras.layers.Conv2D(4, 3, padding="same")(inputs)
    keras.Model(inputs, keras.layers.Dense(3, use_bias=False)(x)).save(tmp_path / "maps.keras")
    kept = build(TransferOptions(tmp_path / "maps.keras"), data((8, 8, 2), 3))
    want = keras.models.load_model(tmp_path / "maps.keras")(images(2, 8, 8, 2))
    np.testing.assert_allclose(kept(images(2, 8, 8, 2)), want, rtol=1e-4, atol=1e-5)


def test_bytes_are_brought_to_the_range_that_the_file_was_trained_with(trained):
    path, model = trained
    trunk = keras.Model(model.input, model.get_layer("hidden").output)
    built = build(TransferOptions(path, input_range=(-1.0, 1.0)), data())
    kernel, bias = model.layers[-1].get_weights()
    expected = np.asarray(trunk(images(3, 8, 8, 1) / 127.5 - 1)) @ kernel + bias
    np.testing.assert_allclose(np.asarray(built(images(3, 8, 8, 1))), expected, rtol=1e-4, atol=1e-5)


def test_frozen_layers_are_those_of_the_patterns_and_never_the_head(trained):
    path, _ = trained
    assert [v.path for v in build(TransferOptions(path, freeze=("*",)), data()).trainable_variables] == [
        "logits/kernel",
        "logits/bias",
    ]
    some = build(TransferOptions(path, freeze=("stem*",), input_range=(0.0, 1.0)), data())
    assert {v.path.split("/")[0] for v in some.trainable_variables} == {"hidden", "logits"}


def test_what_an_earlier_training_froze_is_trained_unless_it_is_named_again(trained):
    path, model = trained
    model.trainable = False
    model.save(path)
    assert len(build(TransferOptions(path), data()).trainable_variables) == len(model.weights) - 2
    assert len(build(TransferOptions(path, freeze=("*",)), data()).trainable_variables) == 2


def test_random_layers_draw_by_the_seed_of_now(tmp_path):
    layers = [keras.Input((8, 8, 1)), keras.layers.Flatten(), keras.layers.Dropout(0.5), keras.layers.Dense(5)]
    keras.Sequential(layers).save(tmp_path / "dropout.keras")

    def drawn(seed):
        keras.utils.set_random_seed(seed)
        return np.asarray(build(TransferOptions(tmp_path / "dropout.keras"), data())(images(2, 8, 8, 1), training=True))

    np.testing.assert_array_equal(drawn(1), drawn(1))
    assert not np.array_equal(drawn(1), drawn(2))


def test_all_layers_of_a_name_are_frozen(tmp_path):
    parts = [keras.Sequential([keras.Input((6,)), keras.layers.Dense(6, name="same")], name=name) for name in "ab"]
    keras.Sequential([keras.Input((6,)), *parts, keras.layers.Dense(3)]).save(tmp_path / "nested.keras")
    built = build(TransferOptions(tmp_path / "nested.keras", freeze=("same",)), data((6,), 3))
    assert [v.path for v in built.trainable_variables] == ["logits/kernel", "logits/bias"]


def test_a_file_of_float32_layers_computes_in_the_precision_that_is_asked_for(trained):
    path, model = trained
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        built = build(TransferOptions(path), data())
    finally:
        keras.config.set_dtype_policy("float32")
    assert built.get_layer("hidden").compute_dtype == "bfloat16"
    assert built.get_layer("hidden").kernel.dtype == built.get_layer("logits").compute_dtype == "float32"
    np.testing.assert_array_equal(
        built.get_layer("hidden").get_weights()[0], model.get_layer("hidden").get_weights()[0]
    )


def test_pixels_stay_in_float32_whatever_the_precision_and_operations_may_be_in_the_graph(tmp_path):
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    x = keras.ops.flip(keras.layers.RandomFlip(dtype="float32", name="flip_at_random")(inputs), axis=-1)
    x = keras.layers.Flatten()(keras.layers.Rescaling(1 / 255, dtype="float32", name="scale")(x))
    model = keras.Model(inputs, keras.layers.Dense(3)(keras.layers.Dense(4, name="hidden")(x)))
    model.save(tmp_path / "flipped.keras")
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        built = build(TransferOptions(tmp_path / "flipped.keras"), data((8, 8, 3), 3))
    finally:
        keras.config.set_dtype_policy("float32")
    computed = {name: built.get_layer(name).compute_dtype for name in ("flip_at_random", "scale", "hidden")}
    assert computed == {"flip_at_random": "float32", "scale": "float32", "hidden": "bfloat16"}
    batch = images(2, 8, 8, 3)
    np.testing.assert_allclose(built(batch, training=False), model(batch, training=False), atol=0.05)


def test_a_network_that_does_not_fit_is_one_line(trained, tmp_path):
    path, _ = trained
    (tmp_path / "text.keras").write_text("no model")
    keras.Sequential([keras.layers.Input((8, 8, 1)), keras.layers.Flatten()]).save(tmp_path / "flat.keras")
    of_bytes = [keras.layers.Input((8, 8, 1), dtype="uint8"), keras.layers.Flatten(), keras.layers.Dense(5)]
    keras.Sequential(of_bytes).save(tmp_path / "bytes.keras")
    for options, asked, message in (
        (TransferOptions(tmp_path / "no.keras"), data(), "does not exist"),
        (TransferOptions(tmp_path), data(), "not a run folder"),
        (TransferOptions(tmp_path / "text.keras"), data(), r"text.keras: is damaged, or no Keras file \(.*zip"),
        (TransferOptions(tmp_path / "flat.keras"), data(), "nothing, not a Dense"),
        (TransferOptions(path), data((9, 9, 1)), r"samples of \(8, 8, 1\)"),
        (TransferOptions(path), data(classes=0), "--classes"),
        (TransferOptions(path, input_range=(0, 1)), data(dtype="float32"), "is for bytes"),
        (TransferOptions(path, freeze=("stem_cnv",)), data(), "stem_conv"),
        (TransferOptions(path, freeze=("*", "logits")), data(), "no weight to train"),
        (TransferOptions(tmp_path / "bytes.keras"), data(dtype="float32"), "takes samples of uint8"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            build(options, asked)
        assert "\n" not in str(raised.value)
    for chosen in (
        {"freeze": ("*",)},
        {"new_head": True},
        {"head_lr": 0.0},
        {"head_lr": float("nan")},
        {"init": path, "input_range": (1.0, -1.0)},
        {"init": path, "input_range": (0.0, float("inf"))},
        {"init": path, "freeze": ("logits",), "head_lr": 0.1},
    ):
        with pytest.raises(UserError, match="--"):
            TransferOptions(**chosen).check_transfer()


def test_ranks_train_the_new_head_and_leave_the_frozen_trunk(digits, tmp_path):
    first, second = tmp_path / "first", tmp_path / "second"
    common = ("--data", str(digits), "--batch-size", "32", "--no-histograms")
    ended = launch(1, "-m", "hpc_train.mnist", *common, "--model", "cnn", "--epochs", "3", "--run", str(first))
    assert ended.status == 0, ended.output
    options = ("--init", str(first), "--new-head", "--freeze", "*", "--head-lr", "0.2", "--epochs", "1")
    ended = launch(2, "-m", "hpc_train.mnist", *common, *options, "--run", str(second))
    assert ended.status == 0, ended.output
    old, new = (keras.models.load_model(path) for path in (first / "best.keras", second / "model.keras"))
    for mine, theirs in zip(new.get_layer("conv2d").get_weights(), old.get_layer("conv2d").get_weights(), strict=True):
        np.testing.assert_array_equal(mine, theirs)
    assert not np.array_equal(new.get_layer("logits").get_weights()[0], old.get_layer("logits").get_weights()[0])
    # conv 3 x 3 x 32 + 32 and dense 9 * 32 * 100 + 100 of the trunk
    assert "29,220 of them frozen" in ended.output
