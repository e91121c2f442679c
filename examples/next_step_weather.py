"""Forecasts the wind six hours ahead from one map of it, and compares with persistence: that nothing changes.

python examples/next_step_weather.py prepare gfs_wind10m_2018.nc weather
horovodrun -np 2 python examples/next_step_weather.py --data weather --inputs u10 v10 \
    --targets u10_later v10_later --channels first --batch-size 2 --base-batch 4 --epochs 8 \
    --optimizer adam --lr 0.002 --run runs/wind
hpc-train predict runs/wind --data weather --which last --maps 2 --output runs/wind/winds.nc
python examples/next_step_weather.py compare weather runs/wind/winds.json
"""

import json
import sys
from pathlib import Path

import h5py
import numpy as np

HOURS = 6
NAMES = ("u10", "v10")
# Winds of about 1 in the network.
SCALE = 10.0


def prepare(source: str, folder: str) -> None:
    """Write pairs of maps six hours apart: the later month to train, the earlier one to test.

    Args:
        source: NetCDF file with winds u10 and v10 (time, lat, lon), packed or not, and times in hours.
        folder: for train/ and test/.
    """
    with h5py.File(source) as file:
        hours, units = file["time"][()], file["time"].attrs["units"]
        lat, lon = file["lat"][()], file["lon"][()]
        winds = {}
        for name in NAMES:
            about = file[name].attrs
            scale, offset = np.ravel(about.get("scale_factor", 1))[0], np.ravel(about.get("add_offset", 0))[0]
            winds[name] = (file[name][()] * scale + offset).astype(np.float32)
    month = hours > hours[0] + 15 * 24
    # Maps without one exactly six hours later, at gaps and at the end, begin no pair.
    later = {hour: row for row, hour in enumerate(hours.tolist())}
    pairs = np.array([(row, later[hour + HOURS]) for row, hour in enumerate(hours.tolist()) if hour + HOURS in later])
    for split, chosen in (("train", pairs[month[pairs[:, 0]]]), ("test", pairs[~month[pairs[:, 0]]])):
        (Path(folder) / split).mkdir(parents=True, exist_ok=True)
        with h5py.File(Path(folder) / split / "winds.h5", "w") as file:
            for name, values in winds.items():
                file[name], file[f"{name}_later"] = values[chosen[:, 0]], values[chosen[:, 1]]
                for kind in (name, f"{name}_later"):
                    file[kind].attrs["units"] = "m s-1"
            file["lat"], file["lon"], file["time"] = lat, lon, hours[chosen[:, 1]]
            file["time"].attrs["units"] = units
        print(f"{split}: {len(chosen)} pairs")


def build(catalogue):
    """A network that adds to the map the change that it expects; it goes round the globe without a seam.

    Args:
        catalogue: of samples (2, latitudes, longitudes) in m/s, or of any other number of channels.
    """
    import keras
    from keras import layers, ops

    def convolution(x, filters, size, **options):
        side = size // 2
        x = ops.concatenate([x[:, :, -side:], x, x[:, :, :side]], axis=2)
        x = layers.ZeroPadding2D((side, 0))(x)
        return layers.Conv2D(filters, size, **options)(x)

    inputs = keras.Input(catalogue.input_shape)
    now = ops.moveaxis(inputs, 1, -1)
    x = now / SCALE
    for _ in range(3):
        x = convolution(x, 24, 5, activation="gelu")
    # From zero: training begins at persistence.
    change = layers.Conv2D(now.shape[-1], 1, kernel_initializer="zeros", dtype="float32")(x)
    return keras.Model(inputs, ops.moveaxis(now + SCALE * change, -1, 1))


def compare(folder: str, scores: str) -> None:
    """Print the scores of the network beside those of persistence, on the test pairs.

    Args:
        folder: from `prepare`.
        scores: JSON file that `hpc-train predict` wrote.
    """
    (network,) = json.loads(Path(scores).read_text())["scores"].values()
    print("channel     RMSE network  persistence    ACC network  persistence")
    with h5py.File(Path(folder) / "test" / "winds.h5") as file:
        weight = np.cos(np.radians(file["lat"][()]))[:, None]
        for place, name in enumerate(NAMES):
            now, later = (file[kind][()].astype(np.float64) for kind in (name, f"{name}_later"))
            rmse = np.sqrt(np.mean((now - later) ** 2))
            p, t = now - later.mean(0), later - later.mean(0)
            acc = (weight * p * t).sum() / np.sqrt((weight * p * p).sum() * (weight * t * t).sum())
            print(f"{name:10}  {network['rmse'][place]:12.4f} {rmse:12.4f}   {network['acc'][place]:12.4f} {acc:12.4f}")


if __name__ == "__main__":
    if sys.argv[1:2] in (["prepare"], ["compare"]):
        {"prepare": prepare, "compare": compare}[sys.argv[1]](*sys.argv[2:])
    else:
        import keras

        from hpc_train import command_line, training

        task = training.Task(
            "next-step-weather",
            build,
            loss=lambda catalogue: keras.losses.MeanSquaredError(),
            metrics=lambda catalogue: [keras.metrics.MeanAbsoluteError(name="mae")],
            monitor="loss",
            shown=("mae",),
        )
        command_line.main(training.Options, lambda options: training.train(options, task), "next_step_weather.py")
