"""Options of `hpc-train prepare image-folder`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from hpc_train.data.shards.format import MOST_PIXELS
from hpc_train.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How image files become samples."""

    GROUP = "image-folder"

    lists: tuple[str, ...] = ()
    """SPLIT=FILE, such as validation=val.txt, for splits without class folders. Each line of the file has the path of
    an image, relative to the input folder or to its folder of that split, and its class: a name or a number."""
    class_names: Path | None = None
    """Text file with one line for each class, in order: the name of its folder, then a readable name if you want one.
    By default the names of the folders in sorted order, as in ImageNet."""
    size: int | None = None
    """Store pixels, in square images of this side: the shorter side is scaled to it, and the middle is cut out. By
    default the JPEG files themselves are stored, and decoded during training."""
    max_side: int | None = None
    """Without --size: shrink images whose longer side is above this, and encode them again; by default no limit."""
    quality: int = 95
    """Without --size: JPEG quality, 1 to 100, of images that must be encoded again."""
    max_pixels: int = 2**26
    """Images of more pixels are bad: a small file may claim any size, and is decoded whole."""
    bad: Literal["error", "skip"] = "error"
    """What to do with files that are damaged, not images or too small. error: print their names and stop; skip: leave
    them out and list them in left-out.txt beside the shards."""
    min_side: int = 8
    """Images whose shorter side is below this are too small."""
    seed: int = 0
    """Seed of the random order of the samples."""

    def check(self, wanted: bool) -> None:
        """Check the values of the options.

        Args:
            wanted: whether the source is image-folder; other sources take none of these options.

        Raises:
            UserError: a value is impossible, or an option was given that is not `wanted`.
        """
        for field in fields(ImageOptions):
            if not wanted and getattr(self, field.name) != field.default:
                raise UserError(f"--{field.name.replace('_', '-')} is for image-folder; leave it out")
        for name in ("size", "max_side", "min_side", "max_pixels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}; give at least 1")
        if self.max_pixels > MOST_PIXELS and self.size is None and self.max_side is None:
            raise UserError(
                f"--max-pixels is {self.max_pixels}, but shards hold images of at most {MOST_PIXELS}; add --max-side"
            )
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality is {self.quality}; give 1 to 100")
        for name in ("max_side", "quality"):
            if self.size is not None and getattr(self, name) != getattr(ImageOptions, name):
                raise UserError(
                    f"--{name.replace('_', '-')} is for JPEG shards, but --size stores pixels; leave one of them out"
                )
        for text in self.lists:
            if not all(text.partition("=")[::2]):
                raise UserError(f"--lists {text}: not SPLIT=FILE; give for example validation=val.txt")
