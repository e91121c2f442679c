"""Losses and metrics that do not fit the targets or the outputs: Keras broadcasts shapes, and gives wrong numbers."""

from typing import Any

from hpc_train.errors import UserError

# What they compare: class numbers with an output for each class, or values with as many values.
_SPARSE = (
    "SparseCategoricalCrossentropy",
    "SparseCategoricalAccuracy",
    "SparseTopKCategoricalAccuracy",
    "SmoothedCrossEntropy",
    "sparse_categorical_crossentropy",
    "sparse_categorical_accuracy",
    "sparse_top_k_categorical_accuracy",
)
# Losses and metrics of Keras with rules of their own.
_OTHER = (
    *("CTC", "ctc", "Circle", "circle", "AUC", "IoU", "MeanIoU", "BinaryIoU", "OneHotIoU", "OneHotMeanIoU"),
    *("Mean", "Sum", "Metric", "Loss"),
)


def kind_of(judge) -> str | None:
    """What a loss or metric compares: "classes", "values", or None for what has rules of its own.

    Args:
        judge: a loss or metric, or a function.
    """
    function = getattr(judge, "_fn", None) or getattr(judge, "fn", None)
    for part in (judge, function):
        named: Any = part if hasattr(part, "__name__") else type(part)
        if part is None or str(named.__module__).split(".")[0] not in ("keras", "hpc_train"):
            continue
        if named.__name__ in _SPARSE:
            return "classes"
        if named.__name__ in _OTHER or str(named.__module__).startswith("hpc_train"):
            return None
        if named.__name__ not in ("LossFunctionWrapper", "MeanMetricWrapper"):
            return "values"
    return None


def check(judge, name: str, target, output, classes: int = 0, where: str = "") -> None:
    """Check that a loss or metric can compare these targets with these outputs.

    Args:
        judge: the loss or metric; one of the user's own is not checked.
        name: of it, for messages.
        target: a batch of targets, with shape (batch, ...) and dtype; a tensor or a description of one.
        output: the same of the outputs.
        classes: number of classes of the targets, 0 if they are none.
        where: name of the output, where there are several.

    Raises:
        UserError: it cannot; says what fits.
    """
    kind = kind_of(judge)
    wanted, given = tuple(target.shape)[1:], tuple(output.shape)[1:]
    dtype = getattr(target.dtype, "name", str(target.dtype))
    floating, name = "float" in dtype, f"{name}{f' of {where}' if where else ''}"
    if kind == "classes":
        _check_classes(name, wanted, given, floating, dtype, classes)
    elif kind == "values" and not _same(wanted, given):
        raise UserError(
            f"{name} compares values one by one, and targets have shape {wanted}, the network's output {given}; "
            f"{_remedy(wanted, given, floating)}"
        )


def _remedy(wanted: tuple, given: tuple, floating: bool) -> str:
    """What makes values of these shapes comparable."""
    if not floating and len(given) == len(wanted) + 1 and given[-1] != 1:
        return "for class numbers use sparse_categorical_crossentropy"
    if len(given) > 2 and wanted == (given[-1], *given[:-1]):
        axes = ", ".join(map(str, (len(given), *range(1, len(given)))))
        return f"where targets have their channels first, end the network with keras.layers.Permute(({axes}))"
    return "give the last layer the shape of the targets"


def _check_classes(name: str, wanted: tuple, given: tuple, floating: bool, dtype: str, classes: int) -> None:
    if _same(wanted, given) and wanted and wanted[-1] != 1:
        raise UserError(
            f"{name} takes class numbers, and targets have shape {wanted}, one value for each output, as one-hot "
            "labels: use categorical_crossentropy, or store class numbers"
        )
    # Labels of known classes have been read as whole numbers, whatever stores them.
    if floating and not classes:
        raise UserError(f"{name} takes class numbers, and the targets are {dtype}: use mse, mae or another loss")
    if not given or (given[:-1] != wanted and (*given[:-1], 1) != wanted):
        raise UserError(
            f"{name} takes a class number for each output vector, and targets have shape {wanted}, the network's "
            f"output {given}; the output needs the shape {(*wanted, classes or 'classes')}"
        )
    if classes and given[-1] is not None and given[-1] < classes:
        raise UserError(f"{name}: the network has {given[-1]} outputs for {classes} classes; give it {classes}")


def _same(wanted: tuple, given: tuple) -> bool:
    """Whether shapes are the same; one value may have an axis of its own or not."""
    pairs = [(wanted, given), ((*wanted, 1), given), (wanted, (*given, 1))]
    return any(len(a) == len(b) and all(None in (m, n) or m == n for m, n in zip(a, b, strict=True)) for a, b in pairs)
