"""The other frameworks: the same networks as ours, in real process groups. Some tests need a Python with torch."""

import importlib.util
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import keras
import numpy as np
import pytest
from launch import REPOSITORY, environment

from hpc_train import command_line
from hpc_train.bench import frameworks
from hpc_train.bench.frameworks import group, networks
from hpc_train.bench.frameworks.figures import measurement
from hpc_train.bench.frameworks.measure import FrameworkBench, of_maps
from hpc_train.bench.frameworks.start import interpreter
from hpc_train.bench.study.measurements import read
from hpc_train.data.catalogue import Catalogue
from hpc_train.data.shards.arrays import write_shards
from hpc_train.errors import UserError
from hpc_train.trainers import TRAINERS

SCRIPTS = Path(frameworks.__file__).parent / "scripts"
# No weights that begin at 0.
CHANGED = {"mnist": {}, "resnet": {"zero_gamma": False}, "climate": {"optimizer": "sgd"}}


@pytest.fixture(scope="session")
def with_torch():
    """A Python that has torch: this one, or the one that the variable PEERS_PYTHON names."""
    if "PEERS_PYTHON" in os.environ:
        return Path(os.environ["PEERS_PYTHON"])
    if not importlib.util.find_spec("torch"):
        pytest.skip("no torch here, and PEERS_PYTHON names no Python that has it")
    return Path(sys.executable)


def photos(folder, height, width):
    """Shards of 96 made-up images, height x width x 3 bytes, of five classes."""
    draw = np.random.default_rng(0)
    images = draw.integers(0, 256, (96, height, width, 3), np.uint8)
    write_shards(folder, "train", images, draw.integers(0, 5, 96), classes=5)
    return folder


@pytest.fixture(scope="module")
def weather(tmp_path_factory):
    """Four maps of made-up weather, 40 x 72, whose width no network halves four times, and their statistics."""
    folder = tmp_path_factory.mktemp("weather") / "maps"
    made = ["prepare", "climate-synthetic", "--output", folder, "--size", "40", "72", "--train", "4"]
    for words in ([*made, "--validation", "1", "--test", "1"], ["stats", "--data", folder]):
        done = subprocess.run([sys.executable, "-m", "hpc_train.cli", *words], env=environment(), capture_output=True)
        assert done.returncode == 0, done.stderr
    return folder


def ours(trainer, model, data, **changed):
    """(options, network) of our trainer."""
    chosen = TRAINERS[trainer].module.Options(data=data, model=model, **changed)
    return chosen, TRAINERS[trainer].module.task(chosen).model(chosen.catalogue("train"))


def test_of_the_parameters_batch_normalisation_does_not_train_two_a_channel():
    channels = 16 * 7 + 32 * 6 + 64 * 6
    everything, trained = networks.parameters("resnet", "resnet20", (32, 32, 3), 10)
    assert everything - trained == 2 * channels
    # He et al. (2016), Table 6: 0.27 million.
    assert round(trained, -4) == 270_000


def test_the_depths_of_imagenets_networks_are_the_trainers():
    for depth in (18, 34, 50, 101, 152, 200):
        assert networks.sizes(f"resnet{depth}")["imagenet"]
        frameworks.check("tf.distribute", "resnet", f"resnet{depth}")
    assert networks.sizes("resnet110") == {"blocks": (18, 18, 18), "bottleneck": False, "imagenet": False}


@pytest.mark.parametrize("trainer", networks.RECIPES)
def test_the_recipes_are_the_trainers_own(trainer):
    chosen, recipe = TRAINERS[trainer].module.Options(data=Path("x")), networks.RECIPES[trainer]
    assert chosen.optimizer == recipe.optimizer
    assert (chosen.momentum, chosen.nesterov, chosen.weight_decay) == (
        recipe.momentum,
        recipe.nesterov,
        recipe.weight_decay,
    )


@pytest.mark.parametrize(
    ("trainer", "model"),
    [
        ("mnist", "deep"),
        ("mnist", "lstm"),
        ("resnet", "resnet8"),
        ("resnet", "resnet18"),
        ("resnet", "resnet50"),
        ("climate", "tiramisu-small"),
    ],
)
def test_the_pytorch_networks_make_our_steps(tmp_path, digits, weather, with_torch, trainer, model):
    data = {"mnist": digits, "climate": weather}.get(trainer)
    if trainer == "resnet":
        data = photos(tmp_path / "photos", *((12, 16) if model == "resnet8" else (32, 36)))
    keras.utils.set_random_seed(0)
    chosen, network = ours(trainer, model, data, **CHANGED[trainer])
    catalogue = chosen.catalogue("train")
    from hpc_train.data.reading.reader import Reader
    from hpc_train.optim import recipe

    # Not all maps: zeros that pad them would lie at the mean of the first layer's outputs, where ReLU has its corner.
    inputs, targets = Reader(catalogue).read(np.arange(min(16, catalogue.samples - 1)))
    targets = targets.astype(np.int64)
    loss = TRAINERS[trainer].module.task(chosen).compiled_with(chosen, catalogue)["loss"]
    rate, steps = (0.05, 3) if model in ("deep", "lstm", "resnet8") else (1e-3, 2)
    network.compile(recipe.optimizer(chosen, rate), loss, jit_compile=False)
    for variable in network.trainable_variables:
        # In sixteen blocks of full strength gradients grow so much that the order of sums shows.
        if model == "resnet50" and variable.path.endswith("bn3/gamma"):
            variable.assign(variable * 0.1)
    settings = {"model": model, "input_shape": catalogue.input_shape, "classes": catalogue.classes, "steps": steps}
    settings |= {"rate": rate, "momentum": chosen.momentum, "nesterov": chosen.nesterov, "optimizer": "sgd"}
    settings |= {"weight_decay": chosen.weight_decay, "class_weights": None, **networks.sizes(model)}
    if trainer == "climate":
        settings |= of_maps(data, model, catalogue)
        # The two draw other numbers.
        settings["preset"]["dropout"] = 0.0
        for layer in network.layers:
            if isinstance(layer, keras.layers.Dropout):
                layer.rate = 0.0
    given, found = tmp_path / "given.npz", tmp_path / "found.npz"
    np.savez(given, inputs=inputs, targets=targets, settings=json.dumps(settings), **torch_weights(network))
    script = REPOSITORY / "tests/ranks/torch_steps.py"
    subprocess.run([with_torch, script, SCRIPTS, given, found], check=True, timeout=120)
    logits = np.asarray(network(inputs, training=True))
    for _ in range(steps):
        network.train_on_batch(inputs, targets)
    theirs, begun = np.load(found), np.load(given)
    if logits.ndim == 4:
        logits = logits.transpose(0, 3, 1, 2)
    np.testing.assert_allclose(theirs["logits"], logits, rtol=1e-3, atol=1e-4)
    for name, weights in torch_weights(network).items():
        moved = np.abs(weights - begun[name])
        assert moved.max() > 0
        if model in ("resnet18", "resnet50"):
            # So deep that single values differ with the order of sums.
            assert np.linalg.norm(theirs[name] - weights) <= 0.03 * np.linalg.norm(moved) + 1e-6, name
        else:
            np.testing.assert_allclose(theirs[name], weights, atol=0.02 * moved.max() + 1e-6, err_msg=name)


def torch_weights(network):
    """The trained weights in PyTorch's layout: convolutions (out, in, height, width), matrices (out, in)."""
    axes = {1: (0,), 2: (1, 0), 4: (3, 2, 0, 1)}
    # In PyTorch the projection of a shortcut comes last in its block.
    variables = network.trainable_variables
    blocks = [re.match(r"stage\d+_block\d+|.*", variable.path)[0] for variable in variables]
    places = {v.path: (blocks.index(block), "shortcut" in v.path) for v, block in zip(variables, blocks, strict=True)}
    arrays = [variable.numpy() for variable in sorted(variables, key=lambda variable: places[variable.path])]
    return {f"weight-{number:03}": array.transpose(axes[array.ndim]) for number, array in enumerate(arrays)}


@pytest.fixture(params=frameworks.FRAMEWORKS)
def peer(request):
    """A framework and the Python that has it, None where it is this one."""
    return request.param, request.getfixturevalue("with_torch") if request.param == "pytorch-ddp" else None


def test_a_process_group_trains_alike_and_leaves_a_measurement(tmp_path, digits, peer):
    framework, python = peer
    argv, added = frameworks.command(
        framework=framework,
        ranks=2,
        threads=1,
        trainer="mnist",
        model="deep",
        batch_size=16,
        steps=3,
        rounds=2,
        data=digits,
        output=tmp_path / "peer.json",
        python=python,
    )
    env = environment(PYTHONPATH=str(REPOSITORY), **added)
    # The ranks themselves check that the replicas are equal at the end.
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    assert f"{framework}, mnist deep, 53,002 parameters, batch 16 a rank, ranks 2" in ended.stdout
    ((measured,), left_out) = read(tmp_path)
    figures = measured.figures
    assert not left_out
    assert (measured.framework, measured.ranks, measured.batch_size, measured.threads) == (framework, 2, 16, 1)
    assert figures["data"] == Catalogue.open(digits, "train").identity
    assert figures["gradient_bytes"] == 4 * 53002
    assert {way: len(rates) for way, rates in figures["rates"].items()} == {"fit": 2, "fit alone": 2}
    assert [rank["steps"] for rank in figures["steps"]["fit"]["by_rank"]] == [6, 6]
    assert len(figures["peak_memory"]["host"]) == 2
    assert ("torch" if python else "tensorflow") in figures["versions"]


def test_a_peer_trains_on_maps(tmp_path, weather, peer):
    framework, python = peer
    output = tmp_path / "peer.json"
    argv, added = frameworks.command(
        framework, 1, 1, "climate", "tiramisu-small", 1, 2, 1, weather, output, python=python
    )
    env = environment(PYTHONPATH=str(REPOSITORY), **added)
    ended = subprocess.run(argv, env=env, capture_output=True, text=True, timeout=240)
    assert ended.returncode == 0, ended.stderr
    figures = json.loads(output.read_text())
    assert figures["data"] == TRAINERS["climate"].module.Options(data=weather).catalogue("train").identity
    assert {way: len(rates) for way, rates in figures["rates"].items()} == {"fit": 1, "fit alone": 1}


def test_a_measurement_is_made_from_the_results_of_the_ranks():
    rank = {"host": "node1", "processor": "Xeon", "gpus": [], "host_bytes": 10, "gpu_bytes": None}
    rank["versions"] = {"torch": "2.13.0"}
    # (rounds, steps) of each rank; in round 1 rank 1 is the slowest, in round 2 rank 0.
    first = {"fit": [[1.0, 1.0], [3.0, 1.0]], "fit alone": [[0.5, 0.5], [1.0, 1.0]]}
    second = {"fit": [[2.0, 2.0], [1.0, 1.0]], "fit alone": [[1.0, 1.0], [0.5, 0.5]]}
    ranks = [{**rank, "seconds": first, "cores": [0]}, {**rank, "seconds": second, "cores": [1]}]
    found = measurement({"ranks": 2, "batch_size": 8}, ranks)
    # 2 ranks of 2 steps of 8 samples in 4 s; alone in 2 s.
    assert found["rates"] == {"fit": [8.0, 8.0], "fit alone": [16.0, 16.0]}
    assert found["ratios"] == {"fit / fit alone": [0.5, 0.5]}
    assert found["communication"]["share"] == [0.5, 0.5]
    steps = found["steps"]["fit"]
    assert (steps["slowest"], steps["fastest"], steps["mean"]) == ([2, 2, 3, 1], [1, 1, 1, 1], [1.5, 1.5, 2, 1])
    assert [(one["rank"], one["mean"], one["max"]) for one in steps["by_rank"]] == [(0, 1.5, 3), (1, 1.5, 2)]
    assert found["nodes"] == [{"host": "node1", "processor": "Xeon", "cores": 2, "gpus": [], "ranks": 2}]
    assert found["peak_memory"] == {"host": [10, 10], "gpu": None}


def test_the_command_line_has_the_chosen_options(tmp_path):
    asked = {"framework": "tf.distribute", "trainer": "resnet", "model": "resnet20", "batch_size": 32, "steps": 5}
    asked |= {"rounds": 3, "threads": 2, "data": Path("shards/cifar10"), "output": tmp_path / "a file.json"}
    argv, _ = frameworks.command(ranks=4, **asked)
    program, words = argv[:5], argv[5:]
    assert program == [sys.executable, "-m", "hpc_train.cli", "bench", "frameworks"]
    assert command_line.parse(FrameworkBench, "x", words) == FrameworkBench(np=4, **asked)


@pytest.mark.parametrize(
    ("trainer", "model"),
    [
        ("mnist", "fc"),
        ("climate", "deeplab"),
        ("fit", "deep"),
        ("resnet", "resnet20v2"),
        ("resnet", "resnet21"),
        ("resnet", "resnet50v2"),
    ],
)
def test_networks_that_the_others_lack_are_refused(trainer, model):
    with pytest.raises(UserError, match=f"the other frameworks have no {trainer} {model}; they have mnist deep"):
        frameworks.check("tf.distribute", trainer, model)


def test_synthetic_data_are_refused(tmp_path):
    with pytest.raises(UserError, match="measured on data in files"):
        frameworks.command("tf.distribute", 2, 1, "mnist", "deep", 64, 5, 2, "synthetic", tmp_path / "x.json")


def test_a_python_without_torch_is_refused_with_the_remedy(tmp_path):
    for python, why in ((Path("/bin/false"), "cannot import torch"), (tmp_path / "none", "cannot be started")):
        with pytest.raises(UserError, match=f"--peers-python {python} {why}.*pip install -r .*peers.txt"):
            interpreter("pytorch-ddp", python)
    if not importlib.util.find_spec("torch"):
        with pytest.raises(UserError, match=r"which .* lacks: make one with `python -m venv peers"):
            interpreter("pytorch-ddp")


def test_a_rank_that_fails_ends_the_others_and_is_named(tmp_path, capsys):
    programs = ["import time; time.sleep(60)", "import sys; print('no such device'); sys.exit(7)"]
    begun = time.monotonic()
    with pytest.raises(UserError, match="a pair: rank 1 of 2 failed, status 7"):
        group.run([[sys.executable, "-c", text] for text in programs], [dict(os.environ)] * 2, tmp_path, "a pair")
    assert time.monotonic() - begun < 30
    assert capsys.readouterr().err.split("\n") == ["rank 1 of a pair:", "    no such device", ""]


@pytest.mark.parametrize("ended_by", [signal.SIGTERM, signal.SIGINT])
def test_no_rank_outlives_the_command(tmp_path, ended_by):
    rank = "import os, sys, time; open(sys.argv[1], 'x').write(str(os.getpid())); time.sleep(60)"
    files = [tmp_path / f"{number}.pid" for number in range(2)]
    commands = [[sys.executable, "-c", rank, str(file)] for file in files]
    program = "import os; from pathlib import Path; from hpc_train.bench.frameworks import group; "
    program += f"group.run({commands}, [dict(os.environ)] * 2, Path({str(tmp_path)!r}), 'a pair')"
    process = subprocess.Popen(
        [sys.executable, "-c", program], env=environment(PYTHONPATH=str(REPOSITORY)), stderr=subprocess.DEVNULL
    )
    while not all(file.exists() and file.read_text() for file in files):
        assert process.poll() is None
        time.sleep(0.05)
    process.send_signal(ended_by)
    assert process.wait(60) != 0
    for file in files:
        with pytest.raises(ProcessLookupError):
            os.kill(int(file.read_text()), 0)


def test_ranks_that_end_well_print_nothing(tmp_path, capsys):
    group.run([[sys.executable, "-c", "print(1)"]] * 2, [dict(os.environ)] * 2, tmp_path, "a pair")
    assert capsys.readouterr() == ("", "")
