"""FLOPs: published figures, layers counted by hand, and one line for what cannot be counted."""

import re

import numpy as np
import pytest

from hpc_train.errors import UserError

pytest.importorskip("tensorflow")

import keras
from keras import layers

from hpc_train.flops import command as flops_command
from hpc_train.flops import count
from hpc_train.flops.command import Flops
from hpc_train.models import deeplab, resnet


@pytest.mark.parametrize(
    ("build", "published"),
    [
        # He et al. 2016, Table 1, gives 3.8 with the stride in the 1x1 convolutions; in the 3x3 ones it is 4.1.
        (lambda: resnet.build("resnet50", x := keras.Input((224, 224, 3)), x, 1000), "4.09e+09"),
        # Sandler et al. 2018, Table 4.
        (lambda: keras.applications.MobileNetV2(weights=None), "3.01e+08"),
    ],
    ids=["resnet50", "MobileNetV2"],
)
def test_image_networks_take_the_published_multiply_adds(build, published):
    assert f"{count.forward(build()) / 2:.2e}" == published


@pytest.mark.parametrize(
    ("layer", "shape", "multiply_adds"),
    [
        (layers.Dense(5), (7,), 7 * 5),
        (layers.Dense(5), (4, 7), 4 * 7 * 5),
        # Four gates of an LSTM, three of a GRU: input of 7, state of 5, at each of 4 steps.
        (layers.LSTM(5), (4, 7), 4 * 4 * (7 + 5) * 5),
        (layers.GRU(5, return_sequences=True), (4, 7), 4 * 3 * (7 + 5) * 5),
        (layers.Bidirectional(layers.SimpleRNN(5)), (4, 7), 2 * 4 * (7 + 5) * 5),
        (layers.EinsumDense("...x,xyz->...yz", (3, 5)), (4, 7), 4 * 7 * 3 * 5),
        (layers.Conv1D(5, 3, padding="causal"), (9, 2), 9 * 2 * 5 * 3),
        (layers.Conv2D(6, 3), (8, 9, 4), 6 * 7 * 4 * 6 * 9),
        (layers.Conv2D(6, (3, 5), 2, "same"), (9, 8, 4), 5 * 4 * 4 * 6 * 15),
        (layers.Conv2D(6, 3, padding="same", dilation_rate=4), (8, 9, 4), 72 * 4 * 6 * 9),
        (layers.Conv2D(6, 3, padding="same", groups=2), (8, 9, 4), 72 * 2 * 6 * 9),
        (layers.Conv2D(6, 3, padding="same", data_format="channels_first"), (4, 8, 9), 72 * 4 * 6 * 9),
        (layers.Conv3D(2, 3, padding="same"), (3, 4, 5, 6), 60 * 6 * 2 * 27),
        (layers.Conv2DTranspose(6, 3, 2, "same"), (8, 9, 4), 72 * 4 * 6 * 9),
        (layers.Conv1DTranspose(6, 3, 2), (8, 4), 8 * 4 * 6 * 3),
        (layers.DepthwiseConv2D(3, 2, "same", depth_multiplier=2), (8, 8, 4), 16 * 4 * 2 * 9),
        (layers.SeparableConv2D(6, 3, padding="same", depth_multiplier=2), (8, 9, 4), 72 * (4 * 2 * 9 + 8 * 6)),
        (layers.TimeDistributed(layers.Conv2D(6, 3, padding="same")), (2, 8, 9, 4), 2 * 72 * 4 * 6 * 9),
        (layers.BatchNormalization(), (8, 9, 4), 0),
        (layers.PReLU(), (8, 4), 0),
    ],
)
def test_a_layer_takes_two_operations_for_each_multiply_add(layer, shape, multiply_adds):
    inputs = keras.Input(shape)
    model = keras.Model(inputs, layer(inputs))
    expected = {layer.name: 2 * multiply_adds} if multiply_adds else {}
    assert count.by_layer(model) == expected
    assert count.training(model, batch=3) == 18 * multiply_adds


def test_shared_layers_count_each_call_and_nested_models_by_their_layers():
    shared = layers.Dense(3, name="shared")
    inner = keras.Sequential([keras.Input((3,)), layers.Dense(4, name="a")], name="inner")
    inputs = keras.Input((3,))
    model = keras.Model(inputs, inner(shared(shared(inputs))))
    assert count.by_layer(model) == {"shared": 2 * 2 * 9, "inner/a": 2 * 12}


def test_a_model_of_any_size_is_counted_for_the_shape_given():
    inputs = keras.Input((None, None, 2))
    inner = keras.Sequential([keras.Input((None, None, 2)), layers.Conv2D(3, 3, name="a")], name="inner")
    model = keras.Model(inputs, inner(inputs))
    assert count.by_layer(model, (10, 12, 2)) == {"inner/a": 2 * 8 * 10 * 2 * 3 * 9}
    with pytest.raises(UserError, match="inner/a has the unknown size"):
        count.forward(model)
    with pytest.raises(UserError, match="does not fit"):
        count.forward(model, shape=(10, 2))


def test_a_layer_without_a_rule_is_named_and_not_left_out():
    inputs = keras.Input((6, 4))
    for outputs, named in (
        (layers.MultiHeadAttention(2, 3, name="attend")(inputs, inputs), "attend: the operations of MultiHead"),
        (keras.ops.matmul(inputs, keras.ops.transpose(inputs, (0, 2, 1))), "Matmul"),
    ):
        with pytest.raises(UserError, match=named):
            count.forward(keras.Model(inputs, outputs))

    class Subclassed(keras.Model):
        pass

    with pytest.raises(UserError, match="functional API"):
        count.forward(Subclassed())


def test_the_command_prints_parameters_flops_and_the_largest_layers(capsys):
    flops_command.run(Flops(trainer="climate", model="deeplab-small", shape=(48, 64, 5), classes=2, layers=2))
    lines = capsys.readouterr().out.splitlines()
    inputs = keras.Input((48, 64, 5))
    model = deeplab.build("deeplab-small", inputs, inputs, 2)
    total = count.forward(model)
    assert f"{model.count_params():,} parameters" in lines[0]
    assert f"{total / 1e6:.4g} MFLOP a sample" in lines[1]
    assert f"{3 * total / 1e6:.4g} MFLOP a sample and step" in lines[2]
    assert len(lines) == 5
    assert lines[3].split()[0] == "decoder_conv3_conv"


def test_the_command_times_a_step_and_shows_its_memory(capsys):
    flops_command.run(Flops(trainer="mnist", model="fc", shape=(8, 8, 1), step=True, batch_size=4))
    last = capsys.readouterr().out.splitlines()[-1]
    found = re.fullmatch(r"one training step of 4 samples: (\S+) s, (\S+) TFLOP/s, peak memory (\S+) GiB .*", last)
    seconds, rate, memory = map(float, found.groups())
    made = 4 * 6 * (64 * 64 + 64 * 10)
    np.testing.assert_allclose(seconds * rate * 1e12, made, rtol=0.02)
    assert memory > 0


def test_the_command_refuses_options_that_make_no_sense():
    for options, message in (
        (Flops(trainer="climate", model="tiramisi"), "did you mean tiramisu"),
        (Flops(trainer="mnist", model="dep"), "did you mean deep"),
        (Flops(trainer="resnet", model="resnet21"), "resnet"),
        (Flops(trainer="climate", shape=(0, 8, 1)), "--shape"),
        (Flops(trainer="climate", classes=0), "--classes"),
        (Flops(trainer="climate", model="keras:MobileNetV2"), "there is no network 'keras:MobileNetV2'"),
        (Flops(trainer="climate", batch_size=2), "--step"),
    ):
        with pytest.raises(UserError, match=message):
            flops_command.run(options)


def test_a_model_of_ones_own_is_counted_on_the_shape_of_its_data(tmp_path, capsys):
    import own_models

    data = own_models.write(tmp_path / "data", 8, 4)
    asked = {"trainer": "fit", "build": "own_models:two", "data": data, "inputs": ("x",), "targets": ("two",)}
    flops_command.run(Flops(**asked, step=True))
    said = capsys.readouterr().out
    # 5 columns, 8 units, 2 numbers: two operations for each weight of the kernels.
    assert "samples of (5,) float32: 66 parameters" in said
    assert f"{2 * (5 * 8 + 8 * 2)} FLOP a sample" in said
    assert "one training step of 1 sample" in said
    flops_command.run(Flops(**asked, build_args=("units=4",)))
    assert f"{5 * 4 + 4 + 4 * 2 + 2} parameters" in capsys.readouterr().out
    for options, message in (
        ({"trainer": "fit"}, "flops fit needs your function and data"),
        ({**asked, "shape": (5,)}, "--model and --shape are for the networks of the suite"),
        ({"trainer": "mnist", "data": data}, "--data is for `hpc-train flops fit`"),
        ({"trainer": "mnist", "build": "own_models:two"}, "build is for `hpc-train flops fit`"),
        ({"trainer": "mnist", "build_args": ("units=4",)}, "--build-args is for `hpc-train flops fit`"),
        ({**asked, "build_args": ("unit=4",)}, r"did you mean units\? It takes units"),
    ):
        with pytest.raises(UserError, match=message):
            flops_command.run(Flops(**options))
