"""Keras files of others: what they claim or name is one line before Keras builds it; what people save still loads."""

import io
import json
import sys
import time
import zipfile
from contextlib import suppress

import h5py
import numpy as np
import pytest

from hpc_train.errors import UserError
from hpc_train.files.keras_file import checked

keras = pytest.importorskip("keras")


@keras.saving.register_keras_serializable("saved")
class Twice(keras.layers.Layer):
    def call(self, x):
        return 2 * x


def network():
    layers = [keras.Input((6,)), Twice(), keras.layers.Dense(4, "relu", name="first"), keras.layers.Dense(2)]
    return keras.Sequential(layers)


@pytest.fixture
def saved(tmp_path):
    """A saved network, and a function that writes it again with a changed configuration, weights or further members."""
    path = tmp_path / "net.keras"
    network().save(path)
    with zipfile.ZipFile(path) as archive:
        kept = {name: archive.read(name) for name in archive.namelist()}

    def write(config=None, weights=None, more=()):
        parts = dict(kept)
        if config:
            parts["config.json"] = config(json.loads(parts["config.json"]))
        if weights:
            with h5py.File(held := io.BytesIO(parts["model.weights.h5"]), "r+") as file:
                weights(file)
            parts["model.weights.h5"] = held.getvalue()
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in (*parts.items(), *more):
                archive.writestr(name, content)
        return path

    return write


def load(path):
    with checked(path):
        return keras.models.load_model(path, compile=False)


def refused(path, match, weights_only=False, compiled=False):
    began = time.monotonic()
    with pytest.raises(UserError, match=match) as caught, checked(path, (), weights_only, compiled):
        keras.models.load_model(path, compile=False)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 600
    assert str(path) in str(caught.value)
    # Keras itself takes a minute, or gigabytes, for the worst of them.
    assert time.monotonic() - began < 5


def dense(config):
    """The configuration of the layer `first`."""
    return next(layer for layer in config["config"]["layers"] if layer["config"].get("name") == "first")


def with_dense(**changed):
    def change(config):
        dense(config)["config"].update(changed)
        return json.dumps(config)

    return change


def replaced(**changed):
    def change(config):
        dense(config).update(changed)
        return json.dumps(config)

    return change


def nested(depth):
    def change(config):
        text = json.dumps(config)
        return text.replace('"units": 4', '"units": ' + '{"a": ' * depth + "4" + "}" * depth)

    return change


def test_what_people_save_loads_with_the_same_numbers(tmp_path, saved):
    x = np.random.default_rng(1).normal(size=(3, 6)).astype("float32")
    inputs = keras.Input((8, 8, 3))
    inner = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(4, 3), keras.layers.BatchNormalization()])
    pooled = keras.layers.GlobalAveragePooling2D()(inner(keras.layers.RandomFlip()(inputs)))
    functional = keras.Model(inputs, keras.layers.Dense(2)(pooled))
    words = keras.Sequential([keras.Input((4,), dtype="int32"), keras.layers.Embedding(9, 3), keras.layers.LSTM(2)])
    for number, (model, batch) in enumerate(
        ((network(), x), (functional, np.ones((2, 8, 8, 3), "float32")), (words, np.ones((2, 4), "int32")))
    ):
        model.compile("adam", "mse")
        for ending in (".keras", ".h5"):
            model.save(path := tmp_path / f"{number}{ending}")
            np.testing.assert_array_equal(load(path).predict_on_batch(batch), model.predict_on_batch(batch))
    load(saved())  # packed again by another program


def test_a_lookup_layer_with_its_words_loads(tmp_path):
    lookup = keras.layers.StringLookup(vocabulary=["calm", "storm"])
    model = keras.Sequential([keras.Input((1,), dtype="string"), lookup])
    model.save(tmp_path / "words.keras")
    load(tmp_path / "words.keras")


@pytest.mark.parametrize("depth", [200, 900, 100_000])
def test_a_nested_configuration(saved, depth):
    refused(saved(nested(depth)), "nested more than 128 levels deep")


def test_a_configuration_that_an_error_would_quote_at_every_level(saved):
    def deep_and_long(config):
        inner = dense(config)
        inner["config"]["unknown"] = "x" * 6_000_000
        for level in range(40):
            inner = {**inner, "class_name": "TimeDistributed", "config": {"name": f"t{level}", "layer": inner}}
        config["config"]["layers"].append(inner)
        return json.dumps(config)

    refused(saved(deep_and_long), "nested more than 128 levels deep, or too large for that")


def test_a_huge_configuration(saved):
    refused(saved(with_dense(name="x" * 20_000_000)), "config.json of 20 MB")
    refused(saved(lambda config: json.dumps([{"class_name": "Dense"}] * 60_000)), "more than 50000 parts")


def test_bombs(saved):
    refused(saved(more=[("assets/a", bytes(300_000_000))]), "unpack to 300 MB, which is no saved model")
    refused(saved(more=[(f"assets/{n}", bytes(60_000_000)) for n in range(6)]), "which is no saved model")
    refused(saved(lambda config: " " * 400_000_000), "which is no saved model")


@pytest.mark.parametrize("name", ["../up", "/etc/cron.d/x", "assets/../../x", "..\\x", "C:\\x"])
def test_a_member_that_leads_out(saved, name):
    refused(saved(more=[(name, "x")]), "leads out of it or is there twice")


def test_a_member_that_is_a_link_or_there_twice(saved):
    link = zipfile.ZipInfo("assets/link")
    link.external_attr = 0o120777 << 16
    refused(saved(more=[(link, "/etc/passwd")]), "leads out of it or is there twice")
    with pytest.warns(UserWarning, match="Duplicate name"):
        path = saved(more=[("config.json", "{}")])
    refused(path, "leads out of it or is there twice")


def test_code(tmp_path, saved):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Lambda(lambda x: x + 1)])
    for ending in (".keras", ".h5"):
        model.save(tmp_path / f"lambda{ending}")
        refused(tmp_path / f"lambda{ending}", "contains Python code .a lambda., which is never run")
    program = {"module": "keras.layers", "class_name": "TFSMLayer", "config": {"filepath": "/tmp/program"}}
    refused(saved(replaced(**program)), "contains another file with a TensorFlow program")


@pytest.mark.parametrize("kind", ["class", "function"])
def test_a_module_named_in_a_file_is_not_imported(saved, tmp_path, monkeypatch, kind):
    (tmp_path / "planted.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n\n\nclass Dense:\n    pass\n")
    monkeypatch.syspath_prepend(tmp_path)
    evil = {"module": "planted", "class_name": "Dense", "registered_name": "planted>Dense"}
    if kind == "function":
        evil |= {"class_name": "function", "config": "Dense", "registered_name": "Dense2"}
        path = saved(with_dense(activation=evil))
    else:
        path = saved(replaced(**evil))
    refused(path, "is of 'planted', which is not imported for a file")
    assert "planted" not in sys.modules
    assert not (tmp_path / "ran").exists()


def test_a_loss_of_another_module_matters_only_where_the_model_is_compiled(tmp_path, saved):
    loss = {"module": "planted", "class_name": "Loss", "config": {}, "registered_name": "planted>Loss"}
    archive = saved(lambda config: json.dumps({**config, "compile_config": {"loss": loss}}))
    network().save(legacy := tmp_path / "net.h5")
    with h5py.File(legacy, "r+") as file:
        file.attrs["training_config"] = json.dumps({"loss": loss})
    for path in (archive, legacy):
        refused(path, "its 'Loss' is of 'planted', which is not imported for a file", compiled=True)
        with checked(path, ["Loss"], compiled=True):
            pass
        load(path)


def test_a_vocabulary_in_another_file(saved):
    layer = {"module": "keras.layers", "class_name": "StringLookup", "config": {"vocabulary": "/etc/passwd"}}
    refused(saved(replaced(**layer, registered_name=None)), "names another file, '/etc/passwd'")


def plant(how, other):
    """A function that puts values that lie in the file `other` in the place of a weight."""

    def change(file):
        group = file["layers/dense/vars"]
        shape = group["0"].shape
        del group["0"]
        match how:
            case "link":
                group["0"] = h5py.ExternalLink(other, "x")
            case "raw":
                group.create_dataset("0", shape, "f4", external=[(other, 0, h5py.h5f.UNLIMITED)])
            case "virtual":
                layout = h5py.VirtualLayout(shape, "f4")
                layout[:] = h5py.VirtualSource(other, "x", shape)
                group.create_virtual_dataset("0", layout)

    return change


@pytest.mark.parametrize("how", ["link", "raw", "virtual"])
@pytest.mark.parametrize("weights_only", [False, True])
def test_weights_in_another_file(saved, tmp_path, how, weights_only):
    other = str(tmp_path / "secret.h5")
    with h5py.File(other, "w") as file:
        file["x"] = np.ones((6, 4), "f4")
    path = saved(weights=plant(how, other))
    refused(path, rf"(is|are) in another file, {other}", weights_only)
    alone = tmp_path / "net.weights.h5"
    with zipfile.ZipFile(path) as archive:
        alone.write_bytes(archive.read("model.weights.h5"))
    refused(alone, rf"(is|are) in another file, {other}", True)


def test_weights_in_another_file_behind_a_group_that_cannot_be_listed(tmp_path):
    path, other = tmp_path / "net.weights.h5", str(tmp_path / "secret.h5")
    with h5py.File(other, "w") as file:
        file["x"] = np.ones(3)
    with h5py.File(path, "w") as file:
        group = file.create_group("vars")
        for number in range(30):
            group[f"soft{number}"] = h5py.SoftLink("/")
        group["0"] = h5py.ExternalLink(other, "x")
    raw = bytearray(path.read_bytes())
    # The header of HDF5's message that tells how a group is kept, and the version of that message.
    raw[raw.index(b"\x0a\x00\x08\x00\x01\x00\x00\x00") + 8] = 255
    path.write_bytes(raw)
    with h5py.File(path) as file:
        np.testing.assert_array_equal(file["vars/0"], np.ones(3))
    refused(path, "is damaged, or no Keras file", True)


def test_weights_that_only_the_header_claims(saved):
    def claim(file):
        file.create_dataset("huge", (2**20, 2**20), "f4", chunks=(2**10, 2**10))

    refused(saved(weights=claim), "all of it takes 4.* TB")

    def many(file):
        for number in range(40):
            file.create_dataset(f"huge{number}", (2**12, 2**12), "f4", chunks=(2**10, 2**10))

    refused(saved(weights=many), "claim to be weights of 2.* GB")

    def deep(file):
        file.create_group("/".join("a" * 200))

    refused(saved(weights=deep), "has groups 64 deep")


def test_a_network_that_asks_for_more_weights_than_the_file_holds(saved):
    before = keras.Variable.__init__
    refused(saved(with_dense(units=10**9)), r"asks for weights \(6, 1000000000\), but the file holds")
    assert keras.Variable.__init__ is before


def test_damage_anywhere_is_one_line(saved):
    path = saved()
    whole = path.read_bytes()
    random = np.random.default_rng(5)
    for _ in range(200):
        damaged = bytearray(whole[: random.integers(1, len(whole))] if random.random() < 0.3 else whole)
        for place in random.integers(0, len(damaged), 4):
            damaged[place] = random.integers(0, 256)
        path.write_bytes(damaged)
        # What is still whole is believed, and any other exception fails the test.
        with suppress(UserError), checked(path):
            pass
