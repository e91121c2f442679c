"""What a trainer brings to the training that all of them share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hpc_train.optim.recipe import RecipeOptions

if TYPE_CHECKING:
    from hpc_train.data.catalogue import Catalogue

# From so many classes on, accuracy among the five likeliest is reported too.
_MANY_CLASSES = 100


@dataclass(frozen=True)
class Task:
    """A network, and by what it is trained and judged.

    name: of the run, for its folder. model: from the catalogue of the training data to an uncompiled Keras model that
    returns logits. loss: from that catalogue to a Keras loss; by default cross-entropy of the options' recipe.
    metrics: from that catalogue to Keras metrics; by default accuracy. monitor: the metric that the best model and
    --patience go by, which is to grow. shown: the metrics of the progress lines, besides the loss; all of them are in
    metrics.jsonl. notes: from that catalogue to lines that are said once when training begins. facts: from that
    catalogue to plain values of the run, by name, besides those of its data and seed: a resumed run must have the same.
    fits: called with the network, a new one or that of --init, and that catalogue, to raise UserError where they do not
    go together.
    """

    name: str
    model: Callable[["Catalogue"], object]
    loss: Callable[["Catalogue"], object] | None = None
    metrics: Callable[["Catalogue"], list] | None = None
    monitor: str = "accuracy"
    shown: tuple[str, ...] = ("accuracy", "top5")
    notes: Callable[["Catalogue"], list[str]] | None = None
    facts: Callable[["Catalogue"], dict] | None = None
    fits: Callable[[object, "Catalogue"], None] | None = None

    def compiled_with(self, options, catalogue: "Catalogue") -> dict:
        """`loss` and `metrics` for Keras's `compile`."""
        import keras

        if self.metrics:
            metrics = self.metrics(catalogue)
        else:
            metrics = ["accuracy"]
            if catalogue.classes >= _MANY_CLASSES:
                metrics.append(keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5"))
        return {"loss": self.loss(catalogue) if self.loss else cross_entropy(options), "metrics": metrics}


def cross_entropy(options: RecipeOptions):
    """Cross-entropy of integer classes and logits, with label smoothing where `options` ask for it."""
    import keras

    if not options.label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    from hpc_train.losses import SmoothedCrossEntropy

    return SmoothedCrossEntropy(options.label_smoothing)
