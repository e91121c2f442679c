"""Options of `hpc-train prepare image-folder`."""

from dataclasses import dataclass, fields
from pathlib import Path
from typing import Literal

from hpc_train.errors import UserError


@dataclass(frozen=True, kw_only=True)
class ImageOptions:
    """How image files become samples; `check` refuses what cannot be."""

    lists: tuple[str, ...] = ()
    """For image-folder: SPLIT=FILE, such as validation=val.txt, for splits without class folders. A line of the file
    is an image's path, below the input folder or its folder of that split, and its class: a name or a number."""
    class_names: Path | None = None
    """For image-folder: text file with a line a class, in order: the folder's name, then perhaps a readable one;
    default: the folders' names in sorted order, which is ImageNet's."""
    size: int | None = None
    """For image-folder: side of the stored images, as pixels: the shorter side becomes this, the middle is cut out;
    default: the JPEG files themselves are stored, and decoded while training."""
    max_side: int | None = None
    """For image-folder without --size: larger images are shrunk to this longer side and encoded again; default: none
    is."""
    quality: int = 95
    """For image-folder without --size: JPEG quality, 1 to 100, of images that must be encoded again."""
    bad: Literal["error", "skip"] = "error"
    """For image-folder: what images do that are damaged, no images or too small: error ends with their names, skip
    leaves them out and names them in left-out.txt beside the shards."""
    min_side: int = 8
    """For image-folder: an image with a shorter side than this is bad."""
    seed: int = 0
    """For image-folder: number that selects the random order of the samples."""

    def check(self, wanted: bool) -> None:
        """UserError for impossible values, and for options of image files where they are not `wanted`."""
        for field in fields(ImageOptions):
            if not wanted and getattr(self, field.name) != field.default:
                raise UserError(f"--{field.name.replace('_', '-')} is for image-folder; leave it out")
        for name in ("size", "max_side", "min_side"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise UserError(f"--{name.replace('_', '-')} is {value}; give at least 1")
        if not 1 <= self.quality <= 100:
            raise UserError(f"--quality is {self.quality}; give 1 to 100")
        for name in ("max_side", "quality"):
            if self.size is not None and getattr(self, name) != getattr(ImageOptions, name):
                raise UserError(
                    f"--{name.replace('_', '-')} is for JPEG shards, but --size makes pixels of all images; "
                    "leave one of them out"
                )
        for text in self.lists:
            if not all(text.partition("=")[::2]):
                raise UserError(f"--lists {text}: not SPLIT=FILE; give for example validation=val.txt")
