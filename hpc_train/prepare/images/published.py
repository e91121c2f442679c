"""Validation images as ImageNet and Tiny ImageNet are downloaded: in one folder, with a file of their classes."""

from pathlib import Path

from hpc_train.data.hdf5.access import reason
from hpc_train.errors import UserError
from hpc_train.prepare.images.lists import list_lines

_TINY = "val_annotations.txt"
_TRUTH, _META = "ILSVRC2012_validation_ground_truth.txt", "meta.mat"


def annotated_lines(root: Path, folder: Path) -> list[tuple[str, str, str]] | None:
    """The lines of a split's folder as from `lists.list_lines`; None where nothing says the classes of its images.

    Args:
        root: the input folder.
        folder: of the split, below it.

    Raises:
        UserError: the file of the classes cannot be read, or does not fit the images.
    """
    if (folder / _TINY).is_file():
        below = (folder / "images" if (folder / "images").is_dir() else folder).relative_to(root)
        return [(f"{below}/{path}", label, where) for path, label, where in list_lines(root, folder / _TINY)]
    truth = next((path for pattern in ("", "*/", "*/*/") for path in sorted(root.glob(pattern + _TRUTH))), None)
    if truth is None:
        return None
    images = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in (".jpeg", ".jpg"))
    labels, synsets = truth.read_text().split(), _synsets(truth.with_name(_META))
    if len(images) != len(labels) or not set(labels) <= synsets.keys():
        raise UserError(
            f"{truth}: has {len(labels)} classes, numbers of {_META}, for {len(images)} images in {folder}; fetch both "
            "again"
        )
    below = folder.relative_to(root)
    lines = enumerate(zip(images, labels, strict=True), 1)
    return [(f"{below}/{name}", synsets[label], f"{truth}: line {number}") for number, (name, label) in lines]


def _synsets(path: Path) -> dict[str, str]:
    """{number in the development kit: name of the class's folder} from its meta.mat."""
    try:
        from scipy.io import loadmat

        entries = loadmat(path, squeeze_me=True)["synsets"]
        return {str(int(entry["ILSVRC2012_ID"])): str(entry["WNID"]) for entry in entries}
    except ImportError as error:
        raise UserError(f"{path}: reading it needs SciPy ({error}); install it: pip install scipy") from error
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise UserError(f"{path}: cannot be read ({reason(error)}); fetch the development kit again") from error
