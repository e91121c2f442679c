"""Tiramisu and DeepLabv3+: outputs calculated in NumPy, FLOPs and parameters counted by hand, any size of image."""

import functools
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from hpc_train.errors import UserError

pytest.importorskip("tensorflow")

import keras
import tensorflow as tf
from keras import ops

from hpc_train.flops import count as flops
from hpc_train.models import deeplab, padding, tiramisu

SMALL = "tiramisu-small", "deeplab-small"
# Of the same structure with as few layers as can be.
TINY = {
    "tiramisu-tiny": tiramisu.Preset(stem=3, down=(1, 2, 3), growth=2, kernel=5, dropout=0.5, batch_norm=True),
    "deeplab-tiny": deeplab.Preset(3, (1, 2, 2, 2), 2, (2, 3), 4, 3, 5, (2, 3), 0.9),
}
H, W = 768, 1152


@pytest.fixture
def tiny(monkeypatch):
    """The tiny networks are in their families."""
    for (name, preset), family in zip(TINY.items(), (tiramisu, deeplab), strict=True):
        monkeypatch.setitem(family.FAMILY, name, preset)


def family(name):
    return tiramisu if name in tiramisu.FAMILY else deeplab


def network(name, shape, classes=3):
    keras.utils.set_random_seed(0)
    inputs = keras.Input(shape)
    return family(name).build(name, inputs, inputs, classes)


def scrambled(model, seed=0):
    """The model with biases, gammas and moving statistics that matter."""
    draw = np.random.default_rng(seed)
    for variable in model.variables:
        if variable.path.endswith(("bias", "gamma", "beta", "moving_mean")):
            variable.assign(draw.uniform(-0.5, 1.5, variable.shape))
        elif variable.path.endswith("moving_variance"):
            variable.assign(draw.uniform(0.5, 1.5, variable.shape))
    return model


class ByHand:
    """Layers in NumPy, float64, with a model's weights by the names of its layers."""

    def __init__(self, model):
        self.weights = {variable.path: np.asarray(variable, "float64") for variable in model.variables}

    def conv(self, x, name, stride=1, dilation=1):
        """Windows centred on pixels 0, stride, ...; zeros around."""
        kernel = self.weights[f"{name}/kernel"]
        reach = (len(kernel) - 1) * dilation
        x = np.pad(x, ((0, 0), (reach // 2,) * 2, (reach // 2,) * 2, (0, 0)))
        windows = np.lib.stride_tricks.sliding_window_view(x, (reach + 1, reach + 1), (1, 2))
        windows = windows[:, ::stride, ::stride, :, ::dilation, ::dilation]
        return np.einsum("bhwcij,ijco->bhwo", windows, kernel) + self.weights.get(f"{name}/bias", 0)

    def transposed(self, x, name):
        """Each value is multiplied by the kernel and added at twice its place; the last row and column fall off."""
        kernel = self.weights[f"{name}/kernel"]
        _, height, width, _ = x.shape
        y = np.zeros((len(x), 2 * height + 1, 2 * width + 1, kernel.shape[2]))
        for i in range(3):
            for j in range(3):
                y[:, i : i + 2 * height : 2, j : j + 2 * width : 2] += x @ kernel[i, j].T
        return y[:, :-1, :-1] + self.weights[f"{name}/bias"]

    def norm(self, x, name):
        if f"{name}/gamma" not in self.weights:
            return x
        gamma, beta, mean, variance = (
            self.weights[f"{name}/{part}"] for part in ("gamma", "beta", "moving_mean", "moving_variance")
        )
        return gamma * (x - mean) / np.sqrt(variance + 1e-5) + beta


def relu(x):
    return np.maximum(x, 0)


def tiramisu_by_hand(model, x, down):
    """Jégou et al. 2017, Figure 1, as Kurth et al. 2018 changed it."""
    hand = ByHand(model)

    def layer(x, name, stride=1):
        return relu(hand.norm(hand.conv(x, f"{name}_conv", stride), f"{name}_bn"))

    def block(x, name, count):
        added = []
        for number in range(1, count + 1):
            added.append(layer(x, f"{name}_layer{number}"))
            x = np.concatenate([x, added[-1]], -1)
        return x, np.concatenate(added, -1)

    x, skips = layer(x, "stem"), []
    for level, count in enumerate(down, 1):
        x, added = block(x, f"down{level}", count)
        if level < len(down):
            skips.append(x)
            x = layer(x, f"down{level}_transition", 2)
    for level in range(len(down) - 1, 0, -1):
        x = np.concatenate([hand.transposed(added, f"up{level}_transposed"), skips.pop()], -1)
        x, added = block(x, f"up{level}", down[level - 1])
    return hand.conv(x, "logits")


def deeplab_by_hand(model, image, preset):
    """Chen et al. 2018, Figure 2, with the encoder of He et al. 2016b, as Kurth et al. 2018 changed it."""
    hand = ByHand(model)

    def active(x, name):
        return relu(hand.norm(x, f"{name}_bn"))

    def layer(x, name, **options):
        return active(hand.conv(x, f"{name}_conv", **options), name)

    x = hand.conv(image, "stem_conv", 2)
    x = np.pad(x, ((0, 0), (0, 1), (0, 1), (0, 0)), constant_values=-np.inf)
    x = np.lib.stride_tricks.sliding_window_view(x, (3, 3), (1, 2))[:, ::2, ::2].max((-1, -2))
    low_level = None
    for stage, (count, dilations, last) in enumerate(zip(preset.blocks, (1, 1, 2, 4), (2, 1, 1, 1), strict=True), 1):
        for number in range(1, count + 1):
            name, stride = f"stage{stage}_block{number}", last if number == count else 1
            y = active(x, name)
            way = hand.conv(y, f"{name}_shortcut", stride) if number == 1 else x[:, ::stride, ::stride]
            y = layer(y, f"{name}_conv1")
            low_level = y if stage == 1 else low_level
            y = layer(y, f"{name}_conv2", stride=stride, dilation=dilations)
            x = way + hand.conv(y, f"{name}_conv3")
    x = active(x, "encoder")
    branches = [layer(x, "aspp_1x1"), *(layer(x, f"aspp_rate{rate}", dilation=rate) for rate in preset.rates)]
    mean = relu(hand.conv(x.mean((1, 2), keepdims=True), "aspp_pool_conv"))
    branches.append(np.broadcast_to(mean, branches[0].shape))
    x = layer(np.concatenate(branches, -1), "aspp_project")
    x = relu(hand.transposed(x, "decoder_up1_transposed"))
    x = np.concatenate([x, layer(low_level, "decoder_low_level")], -1)
    x = layer(layer(x, "decoder_conv1"), "decoder_conv2")
    x = relu(hand.transposed(relu(hand.transposed(x, "decoder_up2_transposed")), "decoder_up3_transposed"))
    skip = relu(hand.conv(relu(hand.conv(image, "decoder_skip1_conv")), "decoder_skip2_conv"))
    x = np.concatenate([x, skip], -1)
    x = relu(hand.conv(relu(hand.conv(x, "decoder_conv3_conv")), "decoder_conv4_conv"))
    return hand.conv(x, "logits")


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("batch_norm", [False, True])
def test_tiramisus_logits_are_those_of_a_numpy_network(batch_norm, monkeypatch):
    monkeypatch.setitem(tiramisu.FAMILY, "tiramisu-tiny", replace(TINY["tiramisu-tiny"], batch_norm=batch_norm))
    model = scrambled(network("tiramisu-tiny", (8, 12, 4)))
    images = np.random.default_rng(1).normal(size=(2, 8, 12, 4)).astype("float32")
    expected = tiramisu_by_hand(model, images, TINY["tiramisu-tiny"].down)
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(model(images, training=False), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.usefixtures("tiny")
def test_deeplabs_logits_are_those_of_a_numpy_network():
    model = scrambled(network("deeplab-tiny", (48, 56, 4)))
    images = np.random.default_rng(1).normal(size=(2, 48, 56, 4)).astype("float32")
    expected = deeplab_by_hand(model, images, TINY["deeplab-tiny"])
    assert np.ptp(expected) > 0.1
    np.testing.assert_allclose(model(images, training=False), expected, rtol=1e-3, atol=1e-3)


def conv(height, width, before, after, kernel):
    return 2 * height * width * before * after * kernel**2


def tiramisu_flops():
    """Forward FLOPs of one sample of 768 x 1152 x 16, from the description in the paper."""
    total, maps, skips = conv(H, W, 16, 64, 5), 64, []
    for level, count in enumerate((2, 2, 2, 4, 5)):
        height, width = H >> level, W >> level
        if level:
            total += conv(height, width, maps, maps, 1)
        for _ in range(count):
            total += conv(height, width, maps, 32, 5)
            maps += 32
        skips.append(maps)
    added = 5 * 32
    for level, count in ((3, 4), (2, 2), (1, 2), (0, 2)):
        total += conv(H >> level + 1, W >> level + 1, added, added, 3)
        maps = skips[level] + added
        for _ in range(count):
            total += conv(H >> level, W >> level, maps, 32, 5)
            maps += 32
        added = count * 32
    return total + conv(H, W, maps, 3, 1)


def deeplab_flops():
    """The same of DeepLabv3+: encoder, pyramid, decoder, each layer (pixels, maps before, maps after, kernel)."""
    half, quarter, eighth = ((H // side) * (W // side) for side in (2, 4, 8))
    made = [(half, 16, 64, 7)]
    before = 64
    for width, blocks, at, strided in ((64, 3, quarter, eighth), (128, 4, eighth, eighth)):
        for block in range(blocks):
            end = strided if block == blocks - 1 else at
            made += [(at, before, 4 * width, 1)] if not block else []
            made += [(at, before, width, 1), (end, width, width, 3), (end, width, 4 * width, 1)]
            before = 4 * width
    for width, blocks in ((256, 6), (512, 3)):
        for block in range(blocks):
            made += [(eighth, before, 4 * width, 1)] if not block else []
            made += [(eighth, before, width, 1), (eighth, width, width, 3), (eighth, width, 4 * width, 1)]
            before = 4 * width
    made += [(eighth, 2048, 256, 1), *3 * [(eighth, 2048, 256, 3)], (1, 2048, 256, 1), (eighth, 5 * 256, 256, 1)]
    made += [(eighth, 256, 256, 3), (quarter, 64, 48, 1), (quarter, 256 + 48, 256, 3), (quarter, 256, 256, 3)]
    made += [(quarter, 256, 256, 3), (half, 256, 256, 3), (H * W, 16, 64, 3), (H * W, 64, 128, 3)]
    made += [(H * W, 256 + 128, 256, 3), (H * W, 256, 256, 3), (H * W, 256, 3, 1)]
    return sum(2 * pixels * i * o * k**2 for pixels, i, o, k in made)


@functools.cache
def full_size(name):
    return network(name, (H, W, 16))


@pytest.mark.parametrize(
    ("name", "published", "by_hand"),
    [("tiramisu", "4.188", tiramisu_flops), ("deeplab", "13.02", deeplab_flops)],
)
def test_the_networks_of_the_paper_need_the_published_flops_in_a_training_step(name, published, by_hand):
    assert flops.forward(full_size(name)) == by_hand()
    assert f"{flops.training(full_size(name)) / 1e12:.4g}" == published


def tiramisu_parameters(stem, down, growth, kernel, channels, classes, normalised):
    """Kernels; for each filter a bias, or two numbers where it is normalised: all but transposed ones and the last."""
    each = 2 if normalised else 1
    maps = stem
    count = kernel**2 * channels * stem + each * stem
    skips = []

    def block(maps, layers):
        return sum(kernel**2 * (maps + i * growth) * growth + each * growth for i in range(layers))

    for layers in down:
        if skips:
            count += maps * maps + each * maps
        count += block(maps, layers)
        maps += layers * growth
        skips.append(maps)
    added = down[-1] * growth
    for layers, skip in reversed(list(zip(down[:-1], skips[:-1], strict=True))):
        count += 9 * added**2 + added + block(skip + added, layers)
        maps, added = skip + added + layers * growth, layers * growth
    return count + maps * classes + classes


def test_tiramisus_have_the_parameters_counted_by_hand():
    full = full_size("tiramisu")
    assert full.count_params() == tiramisu_parameters(64, (2, 2, 2, 4, 5), 32, 5, 16, 3, False)
    small = network("tiramisu-small", (32, 32, 2), classes=2)
    trainable = sum(int(np.prod(variable.shape)) for variable in small.trainable_variables)
    assert trainable == tiramisu_parameters(24, (2, 2, 2, 3, 4), 12, 3, 2, 2, True)


def test_deeplab_is_a_resnet50_at_stride_8_with_a_decoder_to_full_resolution():
    model = full_size("deeplab")
    # A published ResNet-50 without classifier, normalisation and the stem, which there takes 3 channels.
    kernels = 25_557_032 - 2_049_000 - 53_120 - 49 * 3 * 64
    sizes = {variable.path: int(np.prod(variable.shape)) for variable in model.trainable_variables}
    assert sum(size for path, size in sizes.items() if path.startswith("stage") and "kernel" in path) == kernels
    parts = {
        "stem_pool": (4, 64),
        "stage1_block2_add": (4, 256),
        "stage1_block3_add": (8, 256),
        "stage4_block3_add": (8, 2048),
        "aspp_concat": (8, 5 * 256),
        "decoder_low_level_relu": (4, 48),
        "decoder_concat1": (4, 256 + 48),
        "decoder_up2_relu": (2, 256),
        "decoder_concat2": (1, 256 + 128),
        "decoder_conv4_relu": (1, 256),
    }
    shapes = {name: (H // stride, W // stride, maps) for name, (stride, maps) in parts.items()}
    assert {name: model.get_layer(name).output.shape[1:] for name in shapes} == shapes
    assert [model.get_layer(f"aspp_rate{rate}_conv").dilation_rate for rate in (12, 24, 36)] == [
        (12, 12), (24, 24), (36, 36),
    ]  # fmt: skip


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", TINY)
def test_a_size_that_is_no_multiple_is_padded_by_zeros_and_cropped(name):
    whole, multiple = network(name, (48, 64, 2)), family(name).multiple(name)
    odd = network(name, (48 - multiple + 1, 61, 2))
    odd.set_weights(whole.get_weights())
    height, width = odd.input_shape[1:3]
    top, left = (48 - height) // 2, 1
    images = np.random.default_rng(0).normal(size=(2, height, width, 2)).astype("float32")
    padded = np.zeros((2, 48, 64, 2), "float32")
    padded[:, top : top + height, left : left + width] = images
    expected = np.asarray(whole(padded, training=False))[:, top : top + height, left : left + width]
    assert odd.output_shape == (None, height, width, 3)
    assert odd.layers[-1].name == "logits"
    np.testing.assert_allclose(odd(images, training=False), expected, rtol=1e-4, atol=1e-5)


@given(st.integers(1, 2000), st.integers(1, 2000), st.sampled_from([8, 16, 32]))
def test_padding_goes_to_the_next_multiple_and_is_noted(height, width, multiple):
    tall, wide = padding.padded(height, width, multiple)
    assert tall % multiple == wide % multiple == 0
    assert 0 <= tall - height < multiple
    assert 0 <= wide - width < multiple
    note = padding.notice(height, width, multiple)
    assert note == (None if (tall, wide) == (height, width) else f"{height} x {width} padded to {tall} x {wide}")


def test_there_is_no_note_for_unknown_sizes():
    assert padding.notice(None, 360, 16) is None
    assert padding.notice(181, 360, 16) == "181 x 360 padded to 192 x 368"


@pytest.mark.usefixtures("tiny")
@pytest.mark.parametrize("name", TINY)
def test_a_model_of_any_size_gives_the_same_logits_as_one_of_fixed_size(name, tmp_path):
    free, fixed = network(name, (None, None, 2)), network(name, (32, 48, 2))
    free.set_weights(fixed.get_weights())
    images = np.random.default_rng(0).normal(size=(2, 32, 48, 2)).astype("float32")
    expected = np.asarray(fixed(images, training=False))
    np.testing.assert_allclose(free(images, training=False), expected, rtol=1e-5, atol=1e-5)
    free.save(tmp_path / "model.keras")
    assert "hpc_train" not in free.to_json()
    loaded = keras.models.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(loaded(images, training=False), expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("name", SMALL)
def test_every_weight_learns_from_a_single_sample(name):
    model = network(name, (32, 48, 5))
    images = np.random.default_rng(0).normal(size=(1, 32, 48, 5)).astype("float32")
    labels = np.random.default_rng(1).integers(0, 3, (1, 32, 48))
    with tf.GradientTape() as tape:
        logits = model(images, training=True)
        loss = ops.mean(ops.sparse_categorical_crossentropy(labels, logits, from_logits=True))
    variables = [variable.value for variable in model.trainable_variables]
    gradients = tape.gradient(loss, variables)
    still = [v.path for v, g in zip(model.trainable_variables, gradients, strict=True) if g is None or not np.any(g)]
    assert still == []


@pytest.mark.parametrize("name", SMALL)
def test_logits_are_float32_where_the_network_computes_in_float16(name):
    keras.config.set_dtype_policy("mixed_float16")
    try:
        model = network(name, (16, 16, 4))
    finally:
        keras.config.set_dtype_policy("float32")
    assert model.get_layer("stem_conv").compute_dtype == "float16"
    logits = model(np.ones((1, 16, 16, 4), "float32"))
    assert logits.dtype == "float32"
    assert np.isfinite(logits).all()


def test_bad_choices_are_refused_in_one_line():
    for name, shape, classes, message in (
        ("tiramisu-smal", (16, 16, 3), 3, "did you mean tiramisu-small"),
        ("deeplabv3", (16, 16, 3), 3, "did you mean deeplab"),
        ("tiramisu", (16, 3), 3, "maps"),
        ("deeplab", (4, 16, 16, 3), 3, "maps"),
        ("deeplab-small", (16, 16, 3), 1, "two classes"),
    ):
        with pytest.raises(UserError, match=message) as raised:
            (tiramisu if "tira" in name else deeplab).build(name, x := keras.Input(shape), x, classes)
        assert "\n" not in str(raised.value)
