"""Classes of label maps that a network never predicts, and the options that help."""

from collections.abc import Mapping, Sequence

import numpy as np


def never_predicted(matrix, names: Sequence[str]) -> list[str]:
    """Names of the classes that occur and are predicted nowhere, by a confusion matrix with true classes in rows."""
    matrix = np.asarray(matrix)
    return [name for name, true, found in zip(names, matrix.sum(1), matrix.sum(0), strict=True) if true and not found]


def never_right(results: Mapping[str, float]) -> list[str]:
    """Keys of the classes that are not predicted right anywhere, by the results of `label_maps.scores`.

    A class that neither occurs nor is predicted has an IoU of 0 too. None is named where all of these may be such.
    """
    iou = {key.removeprefix("iou_"): value for key, value in results.items() if key.startswith("iou_")}
    missed = [name for name, value in iou.items() if not value]
    mean = results.get("mean_iou", 0.0)
    counted = round(sum(iou.values()) / mean) if mean else len(iou)
    return missed if counted > len(iou) - len(missed) else []


def advice(names: Sequence[str], what: str, options: Mapping) -> str:
    """A line about classes that a network does not find.

    Args:
        names: of the classes; at least one.
        what: what is said of them, such as "never predicted".
        options: of the run, as in run.json.
    """
    several = len(names) > 1
    said = f"note: the class{'es' * several} {', '.join(names)} {'are' if several else 'is'} {what}"
    if "class_weights" not in options:
        return f"{said}; give rare classes more weight in the loss"
    plain = options["class_weights"] == "none" and not (options.get("weights") or options.get("weight_power"))
    if plain and options.get("loss") in ("cross-entropy", "focal"):
        return f"{said}; give rare classes more weight: train with --class-weights inverse-sqrt"
    return f"{said}; train longer, or with --class-weights inverse, --weights or --loss cross-entropy+dice"
