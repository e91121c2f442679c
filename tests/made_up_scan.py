"""Made-up scans: folders with the files of a scan, of given trials or of many that are drawn by chance."""

import json
import math
import random

EPOCHS = 6


def distributions(count=5):
    """Optuna's distributions of the first parameters of the space: of every kind, then rates and sizes."""
    from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

    known = {
        "lr": FloatDistribution(1e-4, 0.1, log=True),
        "model": CategoricalDistribution(["cnn", "deep"]),
        "units": IntDistribution(16, 64),
        "nesterov": CategoricalDistribution([True, False]),
        "warmup": CategoricalDistribution([1, "auto"]),
        "batch-size": IntDistribution(16, 1024, log=True),
        "label-smoothing": FloatDistribution(0.0, 0.3, step=0.05),
    }
    more = {f"rate-of-block-{number}": FloatDistribution(0.0, 0.5) for number in range(count - len(known))}
    return dict([*known.items(), *more.items()][:count])


def trial(number, params, curve, state="complete", reason="", space=None, best=max):
    """A trial as trial.json has it, with the values of its epochs as `curve`."""
    from optuna.distributions import distribution_to_json

    space = space or distributions()
    value = None if state in ("open", "failed") or not curve else curve[-1] if state == "pruned" else best(curve)
    return {
        "number": number,
        "params": params,
        "words": [word for name, value in params.items() for word in (f"--{name}", str(value))],
        "distributions": {name: distribution_to_json(space[name]) for name in params},
        "told_before": number,
        "state": state,
        "value": value,
        "epoch": None if value is None else curve.index(value) + 1,
        "reason": reason,
        "told": None if state == "open" else number,
        "since": 1,
        "curve": curve,
    }


def write(folder, trials, members=None, /, objective="accuracy", **settings):
    """A scan's folder of these trials; `members` has lines of trials.jsonl by the members' names."""
    folder.mkdir(parents=True)
    known = {
        "trainer": "mnist",
        "options": ["--data", "shards/my digits", "--epochs", str(EPOCHS)],
        "space": ["lr=log:1e-4..1e-1", "model=cnn,deep"],
        "search": "tpe",
        "prune": "asha",
        "objective": objective,
        "direction": "max",
        "seed": 0,
        "trials": len(trials),
        "ranks_per_trial": 1,
        "folder": "/where/it/began",
        "version": "0.2.0",
        "prune_after": 1,
        "launcher": "horovodrun -np {np}",
        "format": 1,
    }
    (folder / "scan.json").write_text(json.dumps({**known, **settings}))
    for one in trials:
        path = folder / "trials" / f"{one['number']:05}"
        path.mkdir(parents=True)
        (path / "trial.json").write_text(json.dumps({key: one[key] for key in one if key != "curve"}))
        lines = [
            {"epoch": epoch, "step": 10 * epoch, f"val_{objective}": value}
            for epoch, value in enumerate(one["curve"], 1)
        ]
        if lines:
            (path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    for name, lines in (members or {}).items():
        path = folder / "members" / name
        path.mkdir(parents=True)
        (path / "trials.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


def drawn(count, parameters=5, seed=0, epochs=EPOCHS):
    """Trials drawn by chance, whose accuracy depends on lr most, on model and units less, on others not at all.

    Of twenty, about four are pruned after two epochs and one fails; the last two are open.
    """
    chance = random.Random(seed)
    space = distributions(parameters)
    trials = []
    for number in range(count):
        params = {name: _draw(one, chance) for name, one in space.items()}
        reached = _accuracy(params, number / count) + chance.gauss(0, 0.01)
        curve = [max(0.05, reached * (1 - 0.6**epoch) + chance.gauss(0, 0.005)) for epoch in range(1, epochs + 1)]
        kind = chance.random()
        if number >= max(4, count - 2):
            trials.append(trial(number, params, curve[:1], "open", space=space))
        elif kind < 0.05 and number > 3:
            reason = "the loss is not finite (nan) in epoch 1; a smaller --lr may help"
            trials.append(trial(number, params, [], "failed", reason, space=space))
        elif kind < 0.25 and number > 3:
            trials.append(trial(number, params, curve[:2], "pruned", space=space))
        else:
            trials.append(trial(number, params, curve, space=space))
    return trials


def _accuracy(params, progress):
    found = 0.97 - 0.08 * (math.log10(params["lr"]) + 2) ** 2 * (1 - 0.8 * progress)
    found -= 0.05 * (params["model"] == "cnn") + 0.0005 * (64 - params.get("units", 64))
    return max(found, 0.1)


def _draw(distribution, chance):
    if hasattr(distribution, "choices"):
        return chance.choice(distribution.choices)
    low, high = distribution.low, distribution.high
    scale, back = (math.log, math.exp) if distribution.log else (float, float)
    found = back(chance.uniform(scale(low), scale(high)))
    if distribution.step and not isinstance(low, int):
        found = min(high, low + distribution.step * round((found - low) / distribution.step))
    return round(found) if isinstance(low, int) else found
