"""The classes of stored labels, and the labels whose pixels are ignored."""

from dataclasses import dataclass, replace

import numpy as np

from hpc_train.errors import UserError

# The class of ignored pixels.
IGNORED = -1


def number_of(label: int | None, labels: tuple[int, ...]) -> int | None:
    """The number with which an ignored label is delivered, where stored `labels` are read as 0, 1, 2, ....

    It may be none of these labels; without any, labels are delivered as they are stored.
    """
    if label is None or not labels:
        return label
    return labels.index(label) if label in labels else len(labels)


@dataclass(frozen=True)
class ClassMap:
    """From stored labels to classes.

    Args:
        of_label: the class of stored label i, IGNORED (-1) where its pixels are ignored.
        ignore: a stored label beyond these whose pixels are ignored as well, such as 255 or -100.
    """

    of_label: tuple[int, ...]
    ignore: int | None = None

    @classmethod
    def of(cls, where: str, stored: int, class_map: tuple[int, ...] = (), ignore: int | None = None) -> "ClassMap":
        """The map that the options ask for.

        Args:
            where: the file that messages name.
            stored: number of labels according to the data, 0 where the data do not say.
            class_map: the class of each stored label, by default the label itself.
            ignore: a label whose pixels are ignored.

        Raises:
            UserError: when `class_map` and `stored` disagree, or no class is left.
        """
        # An ignored label is often the largest of its type, and the numbers below it are not used.
        fits = len(class_map) == stored or (len(class_map) < stored and ignore == stored - 1)
        if class_map and stored and not fits:
            raise UserError(
                f"{where}: has {stored} classes, but --class-map {' '.join(map(str, class_map))} has "
                f"{len(class_map)} numbers; give one for each stored label (-1: its pixels are ignored)"
            )
        given = class_map or tuple(range(stored))
        if ignore is not None and 0 <= ignore < len(given):
            given, ignore = (*given[:ignore], IGNORED, *given[ignore + 1 :]), None
        if given and max(given) < 0:
            raise UserError(f"{where}: --class-map and --ignore-label leave no class; keep at least one label")
        return cls(given, ignore)

    @property
    def stored(self) -> int:
        """Number of labels: each is a whole number in [0, stored), or `ignore`."""
        return len(self.of_label)

    @property
    def classes(self) -> int:
        """Number of classes of the network, 0 to classes - 1."""
        return max(self.of_label, default=-1) + 1

    @property
    def changes(self) -> bool:
        """Whether the class of any label differs from its number."""
        return self.of_label != tuple(range(self.stored)) or self.ignore is not None

    @property
    def dtype(self) -> np.dtype:
        """The smallest signed type that holds the classes and IGNORED."""
        return np.min_scalar_type(-max(2, self.classes))

    def apply(self, labels: np.ndarray) -> np.ndarray:
        """Classes, of type `dtype`, of an array of labels, of any shape and numeric dtype. All must be in the map."""
        labels = np.asarray(labels)
        outside = np.zeros(labels.shape, bool) if self.ignore is None else labels == self.ignore
        numbers = np.where(outside, self.stored, labels).astype(np.int64)
        return np.array([*self.of_label, IGNORED], self.dtype)[numbers]

    def counts(self, stored) -> np.ndarray:
        """Number of pixels of each class, int64 (classes,).

        Args:
            stored: number of pixels of each stored label, int64 (labels,).

        Raises:
            UserError: for pixels of a label that is not in the map.
        """
        stored, total = np.asarray(stored, np.int64), np.zeros(self.classes, np.int64)
        for label in np.flatnonzero(stored):
            if label >= self.stored and label != self.ignore:
                raise UserError(
                    f"the statistics count {stored[label]} pixels of label {label}, outside the {self.stored} stored "
                    "classes; fix --class-map, --classes or --ignore-label, or run `hpc-train stats` on these data"
                )
            if label < self.stored and self.of_label[label] != IGNORED:
                total[self.of_label[label]] += stored[label]
        return total

    def names(self, stored: tuple[str, ...]) -> tuple[str, ...]:
        """Names of the classes, from those of the labels; () where the labels have none."""
        if len(stored) < self.stored:
            return ()
        parts = [
            [name for name, given in zip(stored, self.of_label, strict=False) if given == number]
            for number in range(self.classes)
        ]
        return tuple("+".join(part) or f"class{number}" for number, part in enumerate(parts))

    def delivered(self, catalogue):
        """The catalogue with the classes, their names and the target dtype that hold after the map."""
        if self.changes:
            catalogue = catalogue.changed("target", dtype=self.dtype)
        return replace(catalogue, classes=self.classes, class_names=self.names(catalogue.class_names))
