"""What a trainer adds to the training that all trainers share."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

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
        model: returns an uncompiled Keras model that gives logits.
        loss: returns a Keras loss; by default it is the cross-entropy of the options' recipe.
        metrics: returns Keras metrics; by default accuracy.
        monitor: the metric that chooses the best model and counts for --patience; larger is better.
        shown: metrics in the progress lines, besides the loss; metrics.jsonl has all metrics.
        notes: returns lines to print once, when training begins.
        facts: returns further plain values by name that a resumed run must share with its earlier starts.
        fits: called with the network (a new one, or that of --init) and the catalogue; raises UserError where they do
            not fit each other.
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
        """The arguments `loss` and `metrics` of Keras's `compile`."""
        import keras

        if self.metrics:
            metrics = self.metrics(catalogue)
        else:
            metrics = ["accuracy"]
            if catalogue.classes >= _MANY_CLASSES:
                metrics.append(keras.metrics.SparseTopKCategoricalAccuracy(5, name="top5"))
        return {"loss": self.loss(catalogue) if self.loss else cross_entropy(options), "metrics": metrics}


def cross_entropy(options: RecipeOptions):
    """Cross-entropy of integer classes and logits, with the label smoothing of `options`."""
    import keras

    if not options.label_smoothing:
        return keras.losses.SparseCategoricalCrossentropy(from_logits=True)
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
