"""Which images there are below a folder and which class each is of: class folders, or lists.

DIR/train/CLASS/*.jpg with DIR/val or validation or test; or DIR/CLASS/*.jpg; or lists of paths and classes.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_train.data.hdf5.access import reason
from hpc_train.data.shards.names import parse_shard_name, shard_name
from hpc_train.errors import UserError
from hpc_train.prepare.images.lists import class_lines, list_lines, shown
from hpc_train.prepare.sources import stratified_split

_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_MOST_CLASSES = 2**31


@dataclass(frozen=True)
class Images:
    """paths: of n image files, below the input folder; targets: their classes, (n,), of the smallest unsigned type."""

    paths: list[str]
    targets: np.ndarray


@dataclass(frozen=True)
class ImageSet:
    """splits: {name: Images}; asides: paths that were passed over, since their names are not those of images."""

    splits: dict[str, Images]
    classes: int
    class_names: tuple[str, ...]
    asides: list[str]


def find_images(root, lists=(), class_names=None, test_fraction=None) -> ImageSet:
    """The images below the folder `root`; other arguments as the options of `hpc-train prepare image-folder`.

    Raises UserError where there are none, or their classes are not known.
    """
    root = Path(root)
    # Not Path.is_dir, which raises where a name is too long.
    if not os.path.isdir(root):
        raise UserError(f"{root}: not a folder; give the one that holds the images with --input")
    lines = {split: list_lines(root, path) for split, path in _by_split(lists).items()}
    folders = {split: path for split, path in _split_folders(root).items() if split not in lines}
    if not lines and not folders:
        if test_fraction is None:
            raise UserError(f"{root}: has no folder `train`; give --test-fraction, for example 0.2")
        folders = {"train": root}
    found, asides = {}, []
    if "test" in folders and not _class_folders(folders["test"]):
        # Challenges publish their test images without classes.
        asides.append(folders.pop("test").name)
    if class_names:
        order, names = class_lines(class_names)
    else:
        order = _order(root, lines, folders)
        names = tuple(map(shown, order))
    numbers = {name: number for number, name in enumerate(order)}
    for split, folder in folders.items():
        found[split] = _in_class_folders(root, split, folder, numbers, asides)
    for split, split_lines in lines.items():
        found[split] = _in_list(root, split, split_lines, numbers)
    # Lists may give numbers alone: then the largest says how many classes there are.
    classes = len(order) or 1 + max(max(targets) for _, targets in found.values())
    dtype = np.min_scalar_type(classes - 1)
    splits = {
        split: Images(found[split][0], np.array(found[split][1], dtype))
        for split in (*_FOLDERS, *found)
        if split in found
    }
    if test_fraction is not None:
        _split_off(root, splits, test_fraction)
    return ImageSet(splits, classes, names, asides)


def _by_split(lists):
    found = {}
    for text in lists:
        split, _, path = text.partition("=")
        if parse_shard_name(shard_name(split, 0, 1)) is None:
            raise UserError(f"--lists {text}: {split!r} is no name for a split; use small letters, digits and _")
        if split in found:
            raise UserError(f"--lists {text}: a second list of {split}; give one")
        found[split] = path
    return found


def _split_folders(root):
    """{split: folder} of the folders that are named after splits."""
    found = {}
    for split, names in _FOLDERS.items():
        there = [root / name for name in names if (root / name).is_dir()]
        if len(there) > 1:
            raise UserError(f"{root}: has both {there[0].name} and {there[1].name}; leave one of them")
        if there:
            found[split] = there[0]
    return found


def _order(root, lines, folders):
    """Names of the classes where no file gives them: of the folders for training, else those in the lists."""
    train = folders.get("train") or _split_folders(root).get("train")
    order = _class_folders(train) if train else []
    if order:
        return order
    if "train" in folders:
        raise _flat(train, "train")
    if "train" not in lines:
        raise UserError(
            f"{root}: no images for training, whose folders would name the classes; give the classes with --class-names"
        )
    labels = {label for split_lines in lines.values() for _, label, _ in split_lines}
    return [] if all(label.isdecimal() for label in labels) else sorted(labels)


def _in_class_folders(root, split, folder, numbers, asides):
    names = _class_folders(folder)
    if not names:
        raise _flat(folder, split)
    paths, targets = [], []
    below = os.path.relpath(folder, root)
    asides += [os.path.normpath(f"{below}/{entry.name}") for entry in _entries(folder) if not _is_folder(entry)]
    for name in names:
        if name not in numbers:
            raise UserError(
                f"{folder / shown(name)}: there is no such class (a folder for training, or a line of --class-names); "
                "rename it or move it away"
            )
        before = len(paths)
        _walk(folder / name, os.path.normpath(f"{below}/{name}"), paths, asides)
        targets += [numbers[name]] * (len(paths) - before)
    if not paths:
        raise UserError(f"{folder}: its class folders hold no images; give another folder with --input")
    return paths, targets


def _flat(folder, split):
    return UserError(
        f"{folder}: no class folders; give the classes of its images with --lists {split}=FILE, a line an image"
    )


def _class_folders(folder):
    return [entry.name for entry in _entries(folder) if _is_folder(entry) and not entry.name.startswith(".")]


def _walk(folder, below, paths, asides):
    """Append the images of a class and of folders in its own; not of links to folders, which may lead in circles."""
    for entry in _entries(folder):
        path, hidden = f"{below}/{entry.name}", entry.name.startswith(".")
        if entry.is_dir(follow_symlinks=False) and not hidden:
            _walk(entry.path, path, paths, asides)
        elif hidden or _is_folder(entry) or not entry.name.lower().endswith(_ENDINGS):
            asides.append(path)
        else:
            paths.append(path)


def _entries(folder):
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise UserError(f"{shown(folder)}: cannot be listed ({reason(error)}); check its permissions") from error


def _is_folder(entry):
    try:
        return entry.is_dir()
    # A link that leads in a circle, or where none may look.
    except OSError:
        return False


def _in_list(root, split, lines, numbers):
    folder = _split_folders(root).get(split)
    base = ""
    if folder and not os.path.exists(root / lines[0][0]) and os.path.exists(folder / lines[0][0]):
        base = folder.name
    targets = []
    for _, label, where in lines:
        number = numbers.get(label)
        if number is None and label.isdecimal() and int(label) < (len(numbers) or _MOST_CLASSES):
            number = int(label)
        if number is None:
            some = f"the {len(numbers)} classes are {', '.join(map(shown, list(numbers)[:3]))}, ..."
            least = f"the numbers of classes are below {_MOST_CLASSES}"
            raise UserError(f"{where}: no class {shown(label)!r}; {some if numbers else least}")
        targets.append(number)
    return [os.path.join(base, path) for path, _, _ in lines], targets


def _split_off(root, splits, test_fraction):
    if "test" in splits or "train" not in splits:
        raise UserError(f"{root}: has a test part of its own, or none for training; leave out --test-fraction")
    train = splits["train"]
    for split, (chosen, targets) in stratified_split(np.arange(len(train.paths)), train.targets, test_fraction).items():
        splits[split] = Images([train.paths[place] for place in chosen], targets)
