"""Residual networks: parameters counted by hand, outputs calculated in NumPy."""

import numpy as np
import pytest

from hpc_train.errors import UserError

# Millions of parameters as the papers give them: CIFAR, He et al. 2016, Table 6; ImageNet, as published models have.
PUBLISHED = {
    "resnet20": 0.27, "resnet32": 0.46, "resnet44": 0.66, "resnet56": 0.85, "resnet110": 1.7,
    "resnet18": 11.7, "resnet34": 21.8, "resnet50": 25.6, "resnet101": 44.5, "resnet152": 60.2,
}  # fmt: skip
IMAGENET = {18: [2, 2, 2, 2], 34: [3, 4, 6, 3], 50: [3, 4, 6, 3], 101: [3, 4, 23, 3], 152: [3, 8, 36, 3]}


def cifar_parameters(depth, shortcut="A", v2=False):
    """Trainable parameters counted by hand: kernels, two numbers a normalised channel, the classifier of ten."""
    n = (depth - 2) // 6
    count = 9 * 3 * 16 + 2 * 16 + 64 * 10 + 10
    for before, width in ((16, 16), (16, 32), (32, 64)):
        count += 9 * before * width + (2 * n - 1) * 9 * width**2 + 2 * n * 2 * width
        if shortcut == "B" and before != width:
            count += before * width + (0 if v2 else 2 * width)
    # v2 normalises what enters a convolution or the head, v1 what leaves one: in all it is the same channels.
    return count


def imagenet_parameters(depth, classes=1000, v2=False):
    """The same for the ImageNet networks, whose shortcuts are projected where they widen."""
    count, before = 49 * 3 * 64 + 2 * 64, 64
    for width, blocks in zip((64, 128, 256, 512), IMAGENET[depth], strict=True):
        after = 4 * width if depth >= 50 else width
        for _ in range(blocks):
            if depth >= 50:
                count += before * width + 9 * width**2 + width * after
                normalised = before + 2 * width if v2 else 2 * width + after
            else:
                count += 9 * before * width + 9 * width**2
                normalised = before + width if v2 else width + after
            projected = before != after
            count += 2 * normalised + projected * (before * after + (0 if v2 else 2 * after))
            before = after
    # In v2 the stem's normalisation is the first block's, and one more comes at the end.
    return count + v2 * (2 * before - 2 * 64) + before * classes + classes


def trainable(model):
    return sum(int(np.prod(variable.shape)) for variable in model.trainable_variables)


@pytest.fixture(scope="module")
def keras():
    pytest.importorskip("tensorflow")
    import keras

    return keras


@pytest.fixture(scope="module")
def build(keras):
    from hpc_train.models import resnet

    def build(name, side=32, classes=10, **options):
        keras.utils.set_random_seed(0)
        inputs = keras.Input((side, side, 3))
        return resnet.build(name, inputs, inputs, classes, **options)

    return build


@pytest.mark.parametrize("depth", [8, 20, 32, 44, 56, 110])
def test_cifar_networks_have_the_papers_parameters(build, depth):
    count = trainable(build(f"resnet{depth}"))
    assert count == cifar_parameters(depth)
    published = PUBLISHED.get(f"resnet{depth}")
    assert published is None or abs(count / 1e6 - published) <= (0.05 if published > 1 else 0.005)


def test_resnet20_has_exactly_269722_parameters_and_1376_moving_statistics(build):
    model = build("resnet20")
    assert trainable(model) == 269_722
    assert model.count_params() == 269_722 + 2 * (16 + 6 * 16 + 6 * 32 + 6 * 64)


@pytest.mark.parametrize(("depth", "shortcut", "v2"), [(20, "B", False), (20, "B", True), (110, "A", True)])
def test_projections_and_pre_activation_change_the_count_as_by_hand(build, depth, shortcut, v2):
    model = build(f"resnet{depth}{'v2' if v2 else ''}", shortcut=shortcut)
    assert trainable(model) == cifar_parameters(depth, shortcut, v2)


@pytest.mark.parametrize(
    ("depth", "exact"), [(18, 11_689_512), (34, 21_797_672), (50, 25_557_032), (101, 44_549_160), (152, 60_192_808)]
)
def test_imagenet_networks_have_the_papers_parameters(build, depth, exact):
    assert imagenet_parameters(depth) == exact
    assert round(exact / 1e6 - PUBLISHED[f"resnet{depth}"], 1) == 0
    if depth in (18, 50, 101):
        assert trainable(build(f"resnet{depth}", 224, 1000)) == exact


def convolve(x, kernel, stride):
    """Padded by zeros alike on both sides, windows centred on 0, stride, ...; (batch, height, width, channels)."""
    side = kernel.shape[0]
    x = np.pad(x, ((0, 0), (side // 2,) * 2, (side // 2,) * 2, (0, 0)))
    windows = np.lib.stride_tricks.sliding_window_view(x, (side, side), (1, 2))[:, ::stride, ::stride]
    return np.einsum("bhwcij,ijco->bhwo", windows, kernel)


def by_hand(model, images, shortcut, v2):
    """Logits of a CIFAR network of three blocks, from the paper's Figure 2 or v2's Figure 4 (e), in NumPy."""
    weights = {variable.path: np.asarray(variable, "float64") for variable in model.variables}

    def conv(x, name, stride=1):
        return convolve(x, weights[f"{name}/kernel"], stride)

    def norm(x, name):
        gamma, beta, mean, variance = (
            weights[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta

    def relu(x):
        return np.maximum(x, 0)

    x = relu(norm(conv(images.astype("float64"), "stem_conv"), "stem_bn"))
    for stage in (1, 2, 3):
        block, stride = f"stage{stage}_block1", 1 if stage == 1 else 2
        if v2 and stage > 1:
            x = relu(norm(x, f"{block}_bn1"))
        way = x
        if stage > 1 and shortcut == "A":
            way = x[:, ::2, ::2]
            way = np.concatenate([way, np.zeros_like(way)], -1)
        elif stage > 1:
            way = conv(x, f"{block}_shortcut_conv", 2)
            way = way if v2 else norm(way, f"{block}_shortcut_bn")
        x = conv(x, f"{block}_conv1", stride)
        x = relu(norm(x, f"{block}_bn2" if v2 else f"{block}_bn1"))
        x = conv(x, f"{block}_conv2")
        x = way + x if v2 else relu(way + norm(x, f"{block}_bn2"))
    if v2:
        x = relu(norm(x, "head_bn"))
    return x.mean((1, 2)) @ weights["logits/kernel"] + weights["logits/bias"]


@pytest.mark.parametrize("side", [8, 11])
@pytest.mark.parametrize("shortcut", ["A", "B"])
@pytest.mark.parametrize("version", ["", "v2"])
def test_logits_are_those_of_a_numpy_network(build, side, shortcut, version):
    model = build(f"resnet8{version}", side, shortcut=shortcut)
    draw = np.random.default_rng(5)
    for variable in model.variables:
        if variable.path.endswith("kernel"):
            continue
        low = 0.5 if variable.path.endswith("variance") else -0.5
        variable.assign(draw.uniform(low, 1.5, variable.shape))
    images = draw.normal(size=(3, side, side, 3)).astype("float32")
    expected = by_hand(model, images, shortcut, bool(version))
    assert np.ptp(expected) > 0.01
    np.testing.assert_allclose(model(images, training=False), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("version", ["", "v2"])
def test_resnet50_is_made_of_bottlenecks_that_stride_in_their_3x3_convolution(keras, build, version):
    model = build(f"resnet50{version}", 64, 1000, zero_gamma=True)
    assert trainable(model) == imagenet_parameters(50, v2=bool(version))
    convolutions = [layer for layer in model.layers if isinstance(layer, keras.layers.Conv2D)]
    assert len(convolutions) == 49 + 4
    assert [c.name for c in convolutions if c.strides == (2, 2) and "shortcut" not in c.name] == [
        "stem_conv", "stage2_block1_conv2", "stage3_block1_conv2", "stage4_block1_conv2",
    ]  # fmt: skip
    assert model.get_layer("stage2_block1_conv2").kernel.shape == (3, 3, 128, 128)
    sides = [model.get_layer(f"stage{stage}_block1_add").output.shape[1] for stage in (1, 2, 3, 4)]
    assert sides == [16, 8, 4, 2]
    zeros = {v.path for v in model.trainable_variables if v.path.endswith(("gamma", "kernel")) and not np.any(v)}
    ends = {f"stage{stage}_block{b}" for stage, blocks in enumerate(IMAGENET[50], 1) for b in range(1, blocks + 1)}
    assert zeros == {f"{end}_conv3/kernel" if version else f"{end}_bn3/gamma" for end in ends}


def test_nothing_follows_the_addition_of_v2(build):
    model = build("resnet14v2")
    block = model.get_layer("stage1_block2_add")
    assert block.input[0] is model.get_layer("stage1_block1_add").output
    assert model.get_layer("head_bn").input is model.get_layer("stage3_block2_add").output


@pytest.mark.parametrize("name", ["resnet14", "resnet14v2"])
def test_zero_gamma_starts_every_block_as_the_identity_that_still_learns(keras, build, name):
    import tensorflow as tf

    model = build(name, zero_gamma=True)
    end = "add" if name.endswith("v2") else "relu"
    ends = [model.get_layer(f"stage{stage}_block{block}_{end}").output for stage in (1, 2, 3) for block in (1, 2)]
    images = np.random.default_rng(0).normal(size=(8, 32, 32, 3)).astype("float32")
    outputs = keras.Model(model.input, ends)(images, training=True)
    for first, second in zip(outputs[::2], outputs[1::2], strict=True):
        assert np.ptp(first) > 0
        np.testing.assert_array_equal(first, second)

    with tf.GradientTape() as tape:
        loss = tf.reduce_mean(
            keras.losses.sparse_categorical_crossentropy(np.arange(8), model(images, training=True), True)
        )
    learning = {
        variable.path
        for variable, gradient in zip(
            model.trainable_variables, tape.gradient(loss, [v.value for v in model.trainable_variables]), strict=True
        )
        if np.abs(gradient).max() > 0
    }
    last = "conv2/kernel" if name.endswith("v2") else "bn2/gamma"
    assert {f"stage{stage}_block{block}_{last}" for stage in (1, 2, 3) for block in (1, 2)} <= learning


def test_without_zero_gamma_all_gammas_start_at_one(build):
    gammas = [variable for variable in build("resnet20").variables if variable.path.endswith("gamma")]
    assert len(gammas) == 19
    assert all((np.asarray(gamma) == 1).all() for gamma in gammas)


def test_kernels_start_from_a_normal_of_variance_2_over_fan_out(build):
    kernel = np.asarray(build("resnet8").get_layer("stage3_block1_conv1").kernel)
    np.testing.assert_allclose(kernel.std(), np.sqrt(2 / (9 * 64)), rtol=2e-2)
    assert np.abs(kernel).max() > 3.5 * kernel.std()


def test_kernels_of_one_shape_start_from_different_numbers(build):
    kernels = [layer.get_weights()[0] for layer in build("resnet8").layers if "stage1" in layer.name and layer.weights]
    first, second = (kernel for kernel in kernels if kernel.ndim == 4)
    assert first.shape == second.shape
    assert abs(np.corrcoef(first.ravel(), second.ravel())[0, 1]) < 0.1


def test_layers_are_named_by_stem_stage_block_and_head(build):
    for name in ("resnet8", "resnet8v2"):
        layers = [layer.name for layer in build(name).layers if layer.weights]
        assert {layer.partition("_")[0] for layer in layers if layer.startswith("stage")} >= {"stage1", "stage3"}
        assert all(layer.startswith(("stem_", "stage", "head_", "logits")) for layer in layers)
        assert layers[-1] == "logits"


def test_a_saved_network_is_plain_keras_and_gives_the_same(keras, build, tmp_path):
    from hpc_train.models import augment, resnet

    inputs = keras.Input((32, 32, 3), dtype="uint8")
    x = augment.crop_flip(keras.layers.Rescaling(1 / 255)(augment.rand_augment(inputs)))
    model = resnet.build("resnet8", inputs, x, 10)
    assert all(type(layer).__module__.startswith("keras.") for layer in model.layers)
    model.save(tmp_path / "model.keras")
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3)).astype("uint8")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_array_equal(loaded(images, training=False), model(images, training=False))


def test_logits_are_float32_under_mixed_precision(keras, build):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = build("resnet8")
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("stage2_block1_conv1").output.dtype == "float16"
    assert model.output.dtype == "float32"
    assert {variable.dtype for variable in model.trainable_variables} == {"float32"}


@pytest.mark.parametrize(
    ("name", "side", "options", "says"),
    [
        ("resnet21", 32, {}, "6n . 2"),
        ("resnet20V2", 32, {}, "mean resnet20v2"),
        ("resnet2", 32, {}, "6n . 2"),
        ("vgg", 32, {}, "no residual network"),
        ("resnet50", 28, {}, "32 x 32"),
        ("resnet20", 6, {}, "8 x 8"),
        ("resnet20", 32, {"shortcut": "C"}, "A .* or B"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused_in_one_line(build, name, side, options, says):
    with pytest.raises(UserError, match=says) as refused:
        build(name, side, **options)
    assert "\n" not in str(refused.value)
