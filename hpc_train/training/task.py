"""What a trainer adds to the training that all trainers share."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from hpc_train.errors import UserError
from hpc_train.optim.recipe import RecipeOptions

if TYPE_CHECKING:
    from hpc_train.data.catalogue import Catalogue

# With this many classes or more, accuracy among the five likeliest is reported too.
_MANY_CLASSES = 100


@dataclass(frozen=True)
class Task:
    """A network, and how it is trained and judged.

    Its functions get the catalogue of the training data.

    Args:
        name: of the run, for its folder.
        model: returns a Keras model. One that is compiled keeps its loss, metrics and optimizers, each of which is made
            to average over the ranks.
        loss: a name of Keras's or `FILE.py:NAME`, for several outputs words such as "y=mse", or a function that
            returns a Keras loss; by default, for class numbers, it is the cross-entropy of the options' recipe.
        metrics: names as of a loss, or a function that returns Keras metrics; by default, with the default loss,
            accuracy.
        monitor: the metric that chooses the best model and counts for --patience, with or without `:min` or `:max`
            after its name: it is needed for metrics that are not Keras's. By default accuracy with the default loss and
            metrics, else the loss. --monitor overrides it.
        shown: metrics in the progress lines, besides the loss; None for all. metrics.jsonl has all metrics.
        notes: returns lines to print once, when training begins.
        facts: returns further plain values by name that a resumed run must share with its earlier starts.
        fits: called with the network (a new one, or that of --init) and the catalogue; raises UserError where they do
            not fit each other.
        transfer: called with the options and the catalogue in place of `model` where there is --init; by default it is
            `transfer.build`.
        benchmark: the name of the benchmark of MLPerf HPC that this is, for --track mlperf; empty for none.
    """

    name: str
    model: Callable[["Catalogue"], object]
    loss: Callable[["Catalogue"], object] | str | tuple[str, ...] | None = None
    metrics: Callable[["Catalogue"], list] | tuple[str, ...] | None = None
    monitor: str | None = None
    shown: tuple[str, ...] | None = None
    notes: Callable[["Catalogue"], list[str]] | None = None
    facts: Callable[["Catalogue"], dict] | None = None
    fits: Callable[[object, "Catalogue"], None] | None = None
    transfer: Callable[[object, "Catalogue"], object] | None = None
    benchmark: str = ""

    def compiled_with(self, options, catalogue: "Catalogue", logits: Callable[[str], bool] = lambda name: True) -> dict:
        """The arguments `loss` and `metrics` of Keras's `compile`.

        Args:
            options: of the trainer.
            catalogue: of the training data.
            logits: whether an output of this name, "" for the only one, gives logits; called where a loss or metric
                has to know.

        Raises:
            UserError: there is no such loss or metric, or none is given for targets that are no class numbers.
        """
        from hpc_train.training.own_model import judges

        # Keras has the outputs' names from the targets.
        outputs = [part.name for part in catalogue.targets] or [""]
        if callable(self.loss):
            loss = self.loss(catalogue)
        elif self.loss:
            if options.label_smoothing:
                raise UserError("--label-smoothing is for the default loss of class numbers; leave it out")
            loss = _losses((self.loss,) if isinstance(self.loss, str) else self.loss, outputs, logits)
        else:
            loss = _default_loss(options, catalogue, lambda: logits(outputs[0]))
        if callable(self.metrics):
            metrics = self.metrics(catalogue)
        else:
            named = judges.of_outputs("--metrics", self.metrics or (), outputs)
            made: dict[str, Any] = {
                output: [judges.metric(name, catalogue.classes, partial(logits, output)) for name in names]
                for output, names in named.items()
            }
            metrics = made.get("", made)
        if not (self.loss or self.metrics):
            metrics = _default_metrics(catalogue)
        return {"loss": loss, "metrics": metrics}


def check_labels(catalogue: "Catalogue", networks: str) -> None:
    """Check that each sample has one class number, and that the number of classes is known.

    Args:
        catalogue: of the training data.
        networks: what needs them, for the message.

    Raises:
        UserError: it has none; says what to do.
    """
    shape, dtype = catalogue.target_shape, catalogue.target_dtype
    if not catalogue.targets:
        found, remedy = "no targets are named", "name the labels with --targets"
    elif shape:
        found = f"the targets have shape {shape}"
        remedy = "store class numbers (of one-hot labels, their argmax)" if len(shape) == 1 else "give other targets"
    elif not catalogue.classes and dtype.kind == "f":
        found = f"the targets are {dtype}"
        remedy = "for numbers train a network of your own with hpc_train.fit, for class numbers give --classes"
    elif not catalogue.classes:
        found, remedy = "the number of classes is not known", "give it with --classes"
    else:
        return
    raise UserError(f"{catalogue.files[0]}: {networks} need one class number for each sample, and {found}; {remedy}")


def _losses(words: tuple[str, ...], outputs: list[str], logits: Callable[[str], bool]):
    """The loss, or a dict of the losses of several outputs; one without a loss is not trained."""
    from hpc_train.training.own_model import judges

    made: dict[str, Any] = {}
    for output, names in judges.of_outputs("--loss", words, outputs).items():
        if len(names) > 1:
            raise UserError(f"--loss: {' and '.join(names)} are for one output; give one loss, or OUTPUT=LOSS for each")
        made[output] = judges.loss(names[0], partial(logits, output)) if names else None
    return made.get("", made)


def _default_loss(options, catalogue: "Catalogue", logits: Callable[[], bool]):
    if not catalogue.classes:
        kind = f"{catalogue.target_dtype} {catalogue.target_shape}"
        raise UserError(
            f"{catalogue.files[0]}: the targets are no class numbers ({kind}), so there is no default loss: name one "
            "with --loss, such as mse (in a script: Task(loss=...)), or for class numbers give --classes"
        )
    return cross_entropy(options, logits())


def _default_metrics(catalogue: "Catalogue") -> list:
    import keras

    if len(catalogue.targets) > 1:
        return []
    top5 = [keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5")] if catalogue.classes >= _MANY_CLASSES else []
    return ["accuracy", *top5]


def cross_entropy(options: RecipeOptions, logits: bool = True):
    """Cross-entropy of integer classes with logits or probabilities, with the label smoothing of `options`."""
    import keras

    if not options.label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=logits)
    if not logits:
        raise UserError(
            "--label-smoothing needs logits: leave out the softmax at the end of the network, or the option"
        )
    from hpc_train.losses import SmoothedCrossEntropy

    return SmoothedCrossEntropy(options.label_smoothing)


def loss_names(loss):
    """The names of what `compile` got as `loss`: a string for one loss, else a list or dict of them; None for none."""
    import keras

    if isinstance(loss, dict):
        return {name: loss_names(one) for name, one in loss.items()}
    if isinstance(loss, (list, tuple)):
        return [loss_names(one) for one in loss]
    found = keras.losses.get(loss)
    return found and (getattr(found, "name", None) or getattr(found, "__name__", type(found).__name__))
