"""Make the files of an earlier version that tests/test_earlier.py reads.

It ran once, with that version's code. It is kept to show what the files are, and it only runs with the package of that
commit. To run it again:

    git worktree add ../earlier cd5bf75 && cp tests/earlier/make.py ../earlier/tests/ && cd ../earlier
    make venv && . .venv/bin/activate && python tests/make.py /a/new/folder

The working folder holds relative paths only, so the files can be copied anywhere. What the files say of the machine
(host name, paths) is replaced.
"""

import hashlib
import json
import os
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

REPOSITORY = Path(__file__).resolve().parents[1]
STOPS = str(REPOSITORY / "tests" / "ranks" / "stops.py")
# 160 samples in global batches of 16 are 10 steps an epoch: step 14 is in the middle of the second.
TRAIN = ("--data", "digits", "--model", "fc", "--augment", "--batch-size", "8", "--epochs", "3", "--no-histograms")
TRAIN += ("--patience", "4", "--ema", "0.9", "--clip-norm", "1", "--weight-decay", "1e-4", "--threads", "1")
TRAIN += ("--lr", "0.1", "--lr-scaling", "none")
STOP_AT = "14"
CLIMATE = ("--data", "maps", "--init", "tiny.keras", "--batch-size", "1", "--epochs", "3", "--no-histograms")
CLIMATE += ("--loss", "dice", "--threads", "1", "--lr", "0.02")


def main(folder: Path) -> None:
    folder.mkdir(parents=True)
    os.chdir(folder)
    # A package of this version that is installed elsewhere does not count.
    os.environ |= {"PYTHONPATH": str(REPOSITORY), "CUDA_VISIBLE_DEVICES": "", "TF_CPP_MIN_LOG_LEVEL": "2"}
    make_digits()
    make_maps()
    make_photos()
    catalogues_cache()
    hpc_train("stats", "--data", "maps")
    hpc_train("stage", "--data", "digits", "--to", "staged")
    train_digits()
    train_climate()
    study()
    expected = {name: digests(name) for name in ("digits", "digits-zstd", "floats", "photos", "maps")}
    # In a process of its own: Horovod starts before TensorFlow does.
    subprocess.run([sys.executable, __file__, "parts"], check=True)
    expected["parts"] = json.loads(Path("parts.json").read_text())
    Path("parts.json").unlink()
    Path("expected.json").write_text(json.dumps(expected, indent=1) + "\n")
    tidy()


def hpc_train(*words: str) -> None:
    subprocess.run(["hpc-train", *words], check=True)


def ranks(number: int, *words: str, stopped: bool = False) -> None:
    ended = subprocess.run(["horovodrun", "-np", str(number), "python", *words])
    assert (ended.returncode != 0) == stopped, ended


def make_digits() -> None:
    """Shards of 160 + 40 handwritten digits as bytes, plain and compressed, and as floats."""
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    images = (images.reshape(-1, 8, 8, 1) * (255 / 16)).astype("uint8")[:200]
    for name, values, more in (
        ("digits", images, ()),
        ("digits-zstd", images, ("--compression", "zstd")),
        ("floats", (images[::4] / 255).astype("float32"), ()),
    ):
        last, each = 4 * len(values) // 5, len(images) // len(values)
        split = {"x_train": values[:last], "x_test": values[last:]}
        classes = labels[:200][::each]
        np.savez(f"{name}.npz", **split, y_train=classes[:last], y_test=classes[last:])
        made = ("--output", name, "--shards", "2", "--classes", "10")
        hpc_train("prepare", "npz", "--input", f"{name}.npz", *made, *more)


def make_maps() -> None:
    """Shards of maps with a class a pixel: 6 + 2 samples of 16 x 24 and 3 channels."""
    from hpc_train.data.shards import write_shards

    draw = np.random.default_rng(0)
    for split, samples in (("train", 6), ("test", 2)):
        coarse = draw.normal(size=(samples, 4, 6, 3)).repeat(4, 1).repeat(4, 2)
        # Few digits, so that git packs them well.
        inputs = np.round(coarse * (10, 8, 3) + (30, 0, 0), 1).astype("float32")
        moist, windy = inputs[..., 0] > 40, inputs[..., 1] > 6
        labels = np.select([moist & windy, moist], [1, 2]).astype("uint8")
        write_shards(
            "maps",
            split,
            inputs,
            labels,
            classes=3,
            class_names=("background", "tc", "ar"),
            shards=1,
            compression="gzip",
            channel_names=("TMQ", "U850", "V850"),
            coordinates={"latitude": np.linspace(-60, 60, 16), "longitude": np.arange(24) * 15.0},
        )


def make_photos() -> None:
    """Encoded shards of 6 + 2 small JPEG files."""
    y, x = np.mgrid[:20, :28]
    for number in range(8):
        pixels = np.stack([5 * x + 20 * number, 6 * y, 3 * x + 2 * y], -1).astype("uint8")
        path = Path("jpeg", "val" if number > 5 else "train", ("cat", "dog")[number % 2], f"{number}.jpg")
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels).save(path, quality=60)
    hpc_train("prepare", "image-folder", "--input", "jpeg", "--output", "photos", "--shards", "1")


def catalogues_cache() -> None:
    """What is kept of 64 files once they have been looked into; the files themselves are left out."""
    from hpc_train.data.catalogue import Catalogue
    from hpc_train.data.shards import write_shards

    images, labels = np.zeros((128, 8, 8, 1), "uint8"), np.arange(128) % 10
    write_shards("many", "train", images, labels, classes=10, shards=64)
    Catalogue.open("many", "train")
    for path in Path("many").glob("*.h5"):
        path.unlink()


def train_digits() -> None:
    """A run stopped within an epoch, and the same run resumed to its end, with predictions."""
    ranks(2, STOPS, "SIGUSR1", "train", STOP_AT, *TRAIN, "--run", "stopped", stopped=True)
    shutil.copytree("stopped", "finished")
    ranks(2, "-m", "hpc_train.mnist", *TRAIN, "--run", "finished", "--resume")
    hpc_train("predict", "finished", "--data", "digits")


def train_climate() -> None:
    """A run on maps with a network of one convolution, which keeps its files small, and its predictions."""
    import keras
    from hpc_train.data.statistics_file import load

    from hpc_train.data.catalogue import Catalogue
    from hpc_train.models.inputs import network_input

    keras.utils.set_random_seed(0)
    inputs, x = network_input(Catalogue.open("maps"), load("maps/statistics.h5"))
    keras.Model(inputs, keras.layers.Conv2D(3, 3, padding="same", name="logits")(x), name="tiny").save("tiny.keras")
    ranks(2, "-m", "hpc_train.climate", *CLIMATE, "--run", "climate")
    hpc_train("predict", "climate", "--data", "maps", "--probabilities")


def study() -> None:
    measured = ("mnist", "--data", "digits", "--model", "fc", "--batch-size", "8")
    measured += ("--steps", "3", "--warmup", "1", "--rounds", "2", "--threads", "1")
    hpc_train("bench", "scaling", "study", "--np", "1,2", "--repeats", "1", "--", *measured)


def digests(name: str) -> dict:
    """SHA-256 of what the reader gives of each split: all inputs, and all targets."""
    from hpc_train.data.encoded_reader import open_reader

    from hpc_train.data.catalogue import Catalogue

    found = {}
    for split in ("train", "validation" if name == "photos" else "test"):
        catalogue = Catalogue.open(name, split)
        inputs, targets = open_reader(catalogue).read(np.arange(catalogue.samples))
        raw = b"".join(inputs) if catalogue.encoding else inputs.tobytes()
        found[split] = [hashlib.sha256(data).hexdigest() for data in (raw, targets.tobytes())]
    return found


def parts() -> None:
    """parts.keras: a model compiled with an object of every class that this package registers with Keras."""
    from hpc_train import parallel

    parallel.init(0)
    import keras

    from hpc_train.losses.cross_entropy import SmoothedCrossEntropy
    from hpc_train.losses.overlap import DiceLoss, TverskyLoss
    from hpc_train.losses.pixels import FocalLoss, PixelCrossEntropy
    from hpc_train.losses.sums import SumOfLosses
    from hpc_train.metrics import SampleIoU, SegmentationScores
    from hpc_train.optim.loss_scale import StaticLossScale
    from hpc_train.optim.rules import LARC, LARS, ClipByGlobalNorm, WeightDecay
    from hpc_train.optim.update import DecayMatricesOnly, RateMultipliers

    optimizer = DecayMatricesOnly(keras.optimizers.AdamW(0.01, weight_decay=0.001))
    optimizer = RateMultipliers(optimizer, {"logits/*": 10.0})
    optimizer = ClipByGlobalNorm(WeightDecay(LARC(LARS(optimizer, eta=0.01)), rate=1e-3), norm=2.0)
    optimizer = parallel.DistributedOptimizer(StaticLossScale(optimizer, 8.0), bucket_mib=2.0, lag=1)
    losses = [PixelCrossEntropy([1.0, 2.0, 3.0], 0.1, 5), FocalLoss(1.5), DiceLoss(), TverskyLoss(0.2, 0.8)]
    inputs = keras.Input((4, 6, 2))
    model = keras.Model(inputs, keras.layers.Conv2D(3, 3, padding="same", name="logits")(inputs), name="parts")
    model.compile(
        optimizer,
        SumOfLosses([*losses, SmoothedCrossEntropy(0.2)]),
        metrics=[SegmentationScores(3, ("background", "tc", "ar")), SampleIoU(3)],
        auto_scale_loss=False,
    )
    draw = np.random.default_rng(1)
    x, y = draw.normal(size=(4, 4, 6, 2)).astype("float32"), draw.integers(0, 3, (4, 4, 6))
    for _ in range(3):
        model.train_on_batch(x, y)
    model.save("parts.keras")
    scores = {name: float(value) for name, value in model.evaluate(x, y, return_dict=True, verbose=0).items()}
    names = sorted(name for name in keras.saving.get_custom_objects() if name.startswith("hpc_train>"))
    values = {"weights": model.weights, "optimizer": model.optimizer.variables}
    bits = {name: [np.asarray(value).tobytes().hex() for value in found] for name, found in values.items()}
    Path("parts.json").write_text(json.dumps({"registered": names, "scores": scores, **bits}))


def tidy() -> None:
    """Leave out what no test reads, and what names this machine."""
    for left_out in (*Path().glob("*.npz"), *Path().glob("study/*.log")):
        left_out.unlink()
    for left_out in (*Path().glob("*/tensorboard"), Path("jpeg")):
        shutil.rmtree(left_out)
    for run in ("stopped", "finished", "climate"):
        for checkpoint in sorted(Path(run, "checkpoints").glob("step-*.h5"))[:-1]:
            checkpoint.unlink()
    here = {f"{folder}/": "" for folder in (Path.cwd(), REPOSITORY, Path(sys.prefix, "bin"))}
    known = {**here, f'"{socket.gethostname()}"': '"localhost"'}
    for path in (path for path in Path().rglob("*.json*") if path.is_file()):
        text = path.read_text()
        for machine, plain in known.items():
            text = text.replace(machine, plain)
        path.write_text(text)


if __name__ == "__main__":
    parts() if sys.argv[1] == "parts" else main(Path(sys.argv[1]))
