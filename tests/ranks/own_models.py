"""Run on N ranks by test_own_models.py: models that users bring, trained by `hpc_train.fit` and by `Task`."""

import json
import sys
from pathlib import Path

from checks import write_outcomes

from hpc_train import parallel

world = parallel.init(seed=0, keras_defaults=True)

import horovod.tensorflow as hvd  # noqa: E402
import keras  # noqa: E402
import numpy as np  # noqa: E402
import pytest  # noqa: E402

TESTS = Path(__file__).parents[1]
sys.path.insert(0, str(TESTS))

import own_models  # noqa: E402

from hpc_train import fit, training  # noqa: E402
from hpc_train.data.plan import TrainPlan  # noqa: E402
from hpc_train.errors import UserError  # noqa: E402
from hpc_train.parallel.collectives import gather_objects  # noqa: E402
from hpc_train.parallel.variables import everything, is_seed  # noqa: E402
from hpc_train.training.assembly import assemble  # noqa: E402
from hpc_train.training.own_model import script  # noqa: E402

FOLDER = Path(parallel.broadcast_object(sys.argv[1])).parent
# The module that this file has imported is the one that the command runs.
FILE = "own_models"
BATCH = 8
CONSTANT = {"lr_scaling": "none", "warmup_epochs": 0.0, "decay": "none"}


def options(build, targets="y", **changed):
    given = {"data": FOLDER / "data", "inputs": ("x",), "batch_size": BATCH, "histograms": False}
    given["targets"] = (targets,) if isinstance(targets, str) else targets
    loss = changed.get("loss")
    changed["loss"] = (loss,) if isinstance(loss, str) else loss or ()
    return fit.Options(build=f"{FILE}:{build}", **{**given, **changed})


def train(name, build, targets="y", **changed):
    """Train with `fit`; the lines of metrics.jsonl and the run's folder."""
    run = FOLDER / name
    fit.run(options(build, targets, run=run, check_every=1, **changed))
    gather_objects(None)
    return [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()], run


def held_out(name):
    import h5py

    with h5py.File(FOLDER / "data" / "validation" / "a.h5") as file:
        return file["x"][()], file[name][()]


def refused(build, targets="y", **changed):
    with pytest.raises(UserError) as caught:
        assemble(options(build, targets, **changed), fit.task(options(build, targets, **changed)), world)
    assert "\n" not in str(caught.value)
    return str(caught.value)


def ten_steps_are_those_of_one_process_on_the_whole_batches():
    import h5py

    size = 24 // world.size
    _, run = train("ten", "one", loss="mse", optimizer="sgd", lr=0.05, epochs=1, batch_size=size, **CONSTANT)

    with h5py.File(FOLDER / "data" / "train" / "a.h5") as file:
        x, y = file["x"][()], file["y"][()]
    alone = own_models.one(type("Catalogue", (), {"input_shape": (5,)}))
    alone.compile(keras.optimizers.SGD(0.05, 0.9), "mse")
    plan = TrainPlan(len(x), size * world.size, 1, 0)
    assert plan.steps() == 10
    for step in range(10):
        batch = plan.indices(0, step, 0)
        alone.train_on_batch(x[batch], y[batch])
    trained = keras.models.load_model(run / "model.keras")
    for got, wanted in zip(trained.weights, alone.weights, strict=True):
        np.testing.assert_allclose(got, wanted, rtol=1e-4, atol=1e-5)


def a_compiled_model_keeps_its_loss_metrics_and_optimizer():
    lines, run = train("compiled", "compiled", epochs=2)
    saved = keras.models.load_model(run / "model.keras")
    assert type(saved.optimizer) is keras.optimizers.SGD
    assert saved.optimizer.momentum == 0.9
    assert [line["learning_rate"] for line in lines] == pytest.approx([0.01] * 2)
    assert lines[-1]["val_mae"] < lines[0]["val_mae"]
    assert json.loads((run / "run.json").read_text())["facts"]["monitor"] == "loss:min"


def rates_of_a_compiled_model_are_multiplied_where_asked_for():
    lines, _ = train("scaled", "compiled", epochs=2, lr_scaling="linear", base_batch=BATCH)
    assert lines[-1]["learning_rate"] == pytest.approx(0.01 * world.size)
    lines, _ = train("scheduled", "scheduled", epochs=1)
    steps = lines[-1]["step"]
    assert lines[-1]["learning_rate"] == pytest.approx(0.1 * 0.5 ** (steps / 10), rel=1e-4)


def replicas_of_models_with_their_own_steps_are_bit_equal_after_fifty_steps():
    assert world.size * BATCH * 50 > 240
    epochs = -(-50 // (240 // (world.size * BATCH)))
    for build in ("gan", "evaluated_gan"):
        monitor = "critic_loss:min" if build == "evaluated_gan" else None
        lines, run = train(build, build, epochs=epochs, monitor=monitor)
        model = own_models.MADE[-1]
        _equal_replicas(model)
        assert lines[-1]["step"] >= 50
        assert int(model.critic_optimizer.iterations) == int(model.generator_optimizer.iterations) == lines[-1]["step"]
        assert lines[-1]["learning_rate_critic_optimizer"] == pytest.approx(0.001)
        assert {"learning_rate_generator_optimizer", "critic_loss"} <= set(lines[-1])
        assert ("val_critic_loss" in lines[-1]) == (run / "best.keras").exists() == bool(monitor)


def a_vae_with_its_own_step_keeps_equal_replicas_and_reports_its_losses():
    vae = script.load(f"{TESTS.parent / 'examples' / 'vae.py'}:build")
    made = []

    def build(catalogue):
        made.append(vae(catalogue))
        return made[-1]

    run = FOLDER / "vae"
    given = options("one", "k", run=run, check_every=1, epochs=3, batch_size=8)
    given = training.Options(**{name: getattr(given, name) for name in training.Options.__dataclass_fields__})
    given = fit.replace(given, data=FOLDER / "digits", inputs=(), targets=(), optimizer="sgd", lr=training.Options.lr)
    given = fit.replace(given, lr_scaling="linear")
    training.train(given, training.Task("vae", build))
    gather_objects(None)
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert lines[-1]["step"] >= 50
    _equal_replicas(made[-1])
    first, last = lines[0], lines[-1]
    assert last["val_loss"] == pytest.approx(last["val_reconstruction"] + last["val_kl"], rel=1e-4)
    assert last["val_loss"] < first["val_loss"]
    assert json.loads((run / "run.json").read_text())["facts"]["monitor"] == "loss:min"


def _equal_replicas(model):
    bits = [np.asarray(variable).tobytes() for variable in everything(model) if not is_seed(variable)]
    assert all(other == bits for other in gather_objects(bits))


def a_run_begins_with_the_weights_of_another_and_trains_what_is_not_frozen():
    _, first = train("first", "one", loss="mse", epochs=1, lr=0.01)
    _, second = train("second", "one", loss="mse", epochs=1, lr=0.01, init=first, freeze=("hidden",))
    before, after = (keras.models.load_model(run / "model.keras") for run in (first, second))
    pairs = zip(before.get_weights(), after.get_weights(), strict=True)
    # Kernel and bias of "hidden", then those of the last layer.
    assert [np.array_equal(*pair) for pair in pairs] == [True, True, False, False]
    assert "no layer" in refused("one", loss="mse", init=first, freeze=("hiden",))


def metrics_over_the_ranks_are_those_of_one_process():
    values = ("mae", "mse", "RootMeanSquaredError", "R2Score", "PearsonCorrelation", "ConcordanceCorrelation")
    values += ("CosineSimilarity", "LogCoshError", "mape")
    classes = ("accuracy", "MeanIoU", "sparse_categorical_crossentropy", "SparseTopKCategoricalAccuracy")
    binary = ("AUC", "binary_accuracy")
    counted = ("AUC", "Precision", "Recall", "TruePositives", "FalseNegatives", "BinaryIoU")
    one_hot = ("F1Score", "categorical_accuracy", "KLDivergence", "CategoricalHinge")
    for build, targets, loss, metrics, more in (
        ("two", "two", "mse", values, {}),
        ("five", "k", None, classes, {"classes": 5}),
        ("softmax", "k", None, classes, {"classes": 5}),
        ("one", "binary", "binary_crossentropy", binary, {}),
        ("sigmoid", "binary", "bce", counted, {}),
        ("softmax", "one_hot", "categorical_crossentropy", one_hot, {"classes": None}),
    ):
        name = f"exact-{build}-{targets}"
        lines, run = train(name, build, targets, loss=loss, metrics=metrics, epochs=1, **more)
        model = keras.models.load_model(run / "model.keras")
        expected = model.evaluate(*held_out(targets), batch_size=61, verbose=0, return_dict=True)
        assert len(expected) == len(metrics) + 1
        for metric, value in expected.items():
            assert lines[-1][f"val_{metric}"] == pytest.approx(value, rel=1e-4, abs=1e-5), (build, metric)


def the_best_model_has_the_least_error_and_the_largest_score():
    # At such a rate every epoch is worse than the one before.
    diverging = {"optimizer": "sgd", "lr": 0.4, "epochs": 3, "loss": "mae", "metrics": ("mse", "R2Score"), **CONSTANT}
    for monitor, choose in (("mse", min), ("R2Score", max)):
        named = {"mse": "mse", "R2Score": "r2_score"}[monitor]
        lines, run = train(f"best-{monitor}", "two", "two", monitor=named, **diverging)
        scores = [line[f"val_{named}"] for line in lines]
        best = keras.models.load_model(run / "best.keras")
        found = best.evaluate(*held_out("two"), batch_size=61, verbose=0, return_dict=True)[named]
        assert found == pytest.approx(choose(scores), rel=1e-4)


def what_does_not_fit_is_refused_before_the_first_step():
    said = {
        "y": refused("one"),
        "sparse on floats": refused("five", loss="sparse_categorical_crossentropy"),
        "mse on classes": refused("five", "k", classes=5, loss="mse"),
        "mae on classes": refused("five", "k", classes=5, metrics=("mae",), loss="sparse_categorical_crossentropy"),
        "shape": refused("two", loss="huber"),
        "one hot": refused("five", "one_hot", loss="sparse_categorical_crossentropy"),
        "few": refused("two", "k", classes=5),
        "typo": refused("one", loss="mean_sqared_error"),
        "metric": refused("one", loss="mse", metrics=("rmes",)),
        "argument": refused("one", loss="mse", metrics=("MeanRelativeError2", "IoU")),
        "needs": refused("five", "k", classes=5, loss="sparse_categorical_crossentropy", metrics=("IoU",)),
        "logits": refused("one", "binary", loss="bce", metrics=("Precision",)),
        "compiled": refused("compiled", loss="mse"),
        "rate": refused("compiled", lr=0.1),
        "optimizer": refused("compiled", optimizer="sgd"),
        "schedule": refused("scheduled", decay="poly"),
        "none": refused("without_optimizer"),
        "raises": refused("raises", loss="mse"),
        "text": refused("returns_text", loss="mse"),
        "two": refused("needs_two", loss="mse"),
        "missing": refused("won", loss="mse"),
        "call": refused("Fails", loss="mse"),
        "loose": refused("loose"),
        "monitor": refused("one", loss="mse", metrics=("mae",), monitor="mea"),
        "own": refused("one", loss="mse", metrics=(f"{FILE}:squared",), monitor="squared"),
        "gan": refused("evaluated_gan", monitor="critic_loss"),
        "patience": refused("evaluated_gan", patience=1),
        "unevaluated": refused("gan", monitor="critic_loss:min"),
        "list": refused("losses_in_a_list", ("y=y", "k=k")),
        "lists": refused("metrics_in_lists", ("y=y", "k=k")),
        "name": refused("one", "a=y", loss="mse"),
        "first": refused("transposed", "map", loss="mse"),
        "float16": refused("gan", precision="float16"),
        "accumulate": refused("gan", accumulate=2),
        "float16 of options": refused("uncompiled_gan", precision="float16"),
        "accumulate of options": refused("uncompiled_gan", accumulate=2),
    }
    # Not float16, which --precision sets for the whole process.
    keras.config.set_dtype_policy("float32")
    expected = {
        "y": "no class numbers (float32 ()), so there is no default loss: name one with --loss, such as mse",
        "sparse on floats": "takes class numbers, and the targets are float32",
        "mse on classes": "targets have shape (), the network's output (5,); for class numbers use sparse_categor",
        "mae on classes": "metric mae compares values one by one",
        "shape": "compares values one by one, and targets have shape (), the network's output (2,); give the last",
        "one hot": "as one-hot labels: use categorical_crossentropy",
        "few": "the network has 2 outputs for 5 classes",
        "typo": "did you mean mean_squared_error?",
        "metric": "--metrics rmes: Keras has none of this name",
        "argument": "--metrics MeanRelativeError2: Keras has none of this name",
        "needs": "--metrics IoU: IoU needs target_class_ids",
        "logits": "--metrics Precision counts probabilities",
        "compiled": "--loss: the model is compiled already",
        "rate": "--lr: the model is compiled already, with optimizer SGD",
        "optimizer": "--optimizer: the model is compiled already, with optimizer SGD",
        "schedule": "--decay: the model's optimizer has a schedule of its own",
        "none": "is compiled without an optimizer",
        "raises": "in raises: `return catalogue.input_shape[0] / 0`)",
        "text": "returns builtins.str, not a Keras 3 model",
        "two": "missing a required argument: 'width'; its first argument may take the catalogue",
        "missing": "own_models: has no 'won'; did you mean two?",
        "call": "in call: `return self.last(x) + keras.ops.reshape(x, (3, 7))`)",
        "loose": "train_step of Loose changes",
        "monitor": "--monitor mea: validation reports no such metric; did you mean mae?",
        "own": "write --monitor squared:min or squared:max",
        "gan": "write --monitor critic_loss:min or critic_loss:max",
        "patience": "--patience needs --monitor: validation reports no loss, only critic_loss",
        "unevaluated": "--monitor: this model is not evaluated",
        "list": "loss mse of k compares values one by one",
        "lists": "metric mae of k compares values one by one",
        "name": "the network has one output, without a name, and the targets are called a",
        "first": "end the network with keras.layers.Permute((3, 1, 2))",
        "float16": "--precision float16 scales the loss of Keras's own train_step",
        "accumulate": "--accumulate is for Keras's own train_step",
        "float16 of options": "--precision float16 scales the loss of Keras's own train_step",
        "accumulate of options": "--accumulate is for Keras's own train_step",
    }
    wrong = {name: said[name] for name in expected if expected[name] not in said[name]}
    assert not wrong, wrong


def gradients_applied_by_hand_end_in_one_line():
    with pytest.raises(UserError, match="the replicas differ from rank 0"):
        fit.run(options("by_hand", epochs=1, run=FOLDER / "by-hand"))


def a_model_without_weights_and_a_loss_of_ones_own():
    lines, _ = train("own-loss", "Subclassed", loss=f"{FILE}:squared", metrics=(f"{FILE}:squared",), epochs=2, lr=0.01)
    assert lines[-1]["val_squared"] == pytest.approx(lines[-1]["val_loss"], rel=1e-5)
    assert lines[-1]["val_loss"] < lines[0]["val_loss"]


CHECKS = [ten_steps_are_those_of_one_process_on_the_whole_batches]
CHECKS += [replicas_of_models_with_their_own_steps_are_bit_equal_after_fifty_steps]
CHECKS += [a_vae_with_its_own_step_keeps_equal_replicas_and_reports_its_losses]
MORE = [a_compiled_model_keeps_its_loss_metrics_and_optimizer, rates_of_a_compiled_model_are_multiplied_where_asked_for]
MORE += [metrics_over_the_ranks_are_those_of_one_process, the_best_model_has_the_least_error_and_the_largest_score]
MORE += [what_does_not_fit_is_refused_before_the_first_step, a_model_without_weights_and_a_loss_of_ones_own]
MORE += [a_run_begins_with_the_weights_of_another_and_trains_what_is_not_frozen]
MORE += [gradients_applied_by_hand_end_in_one_line]

if __name__ == "__main__":
    write_outcomes(CHECKS if world.size > 2 else CHECKS + MORE, world)
    hvd.shutdown()
