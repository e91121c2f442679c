"""What a split holds, as each of its shards records it."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Description:
    """What a split holds.

    Args:
        classes: targets are whole numbers in [0, classes), or 0 where they are not class labels.
        class_names: one for each class, or none.
        channels: the axis of an input sample that counts the channels, "last" or "first".
        channel_names: one for each channel of an input sample, or none.
        target_names: one for each component of a target, or none.
        source: where the data came from.
        ignore_label: a label, maybe outside the classes, of pixels that do not count; or None.
        geometry: what maps show, "globe", "region" or "picture"; "" where it is not known, or follows from coordinates.
    """

    classes: int
    class_names: Sequence[str] = ()
    channels: str = "last"
    channel_names: Sequence[str] = ()
    target_names: Sequence[str] = ()
    source: str = ""
    geometry: str = ""
    ignore_label: int | None = None

    def __post_init__(self) -> None:
        if self.channels not in ("first", "last"):
            raise ValueError(f"channels are {self.channels!r}, not 'first' or 'last'")

    def where(self, split: str) -> str:
        """How messages name the data of `split`."""
        return f"{split} data" + (f" from {self.source}" if self.source else "")

    def check_channel_names(self, input_shape: tuple[int, ...]) -> None:
        """ValueError unless there is a name for each channel, or none. input_shape: (n, ...)."""
        if self.channel_names and len(self.channel_names) != input_shape[1 if self.channels == "first" else -1]:
            raise ValueError(
                f"channel names {self.channel_names} for inputs of shape {input_shape}, channels {self.channels}"
            )

    def attributes(self) -> dict:
        """The attributes of a shard that record it."""
        return {
            "classes": self.classes,
            "class_names": list(self.class_names),
            "channels": self.channels,
            **({"channel_names": list(self.channel_names)} if self.channel_names else {}),
            **({"target_names": list(self.target_names)} if self.target_names else {}),
            **({"geometry": self.geometry} if self.geometry else {}),
            **({} if self.ignore_label is None else {"ignore_label": self.ignore_label}),
            "source": " ".join(self.source.split()),
        }
