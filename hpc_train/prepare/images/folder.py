"""Finds the images below a folder and the class of each, from class folders or lists.

DIR/train/CLASS/*.jpg with DIR/val or validation or test; or DIR/CLASS/*.jpg; or lists of paths and classes.
"""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from hpc_train.console import say
from hpc_train.data.hdf5.access import reason
from hpc_train.data.shards.names import parse_shard_name, shard_name
from hpc_train.errors import UserError
from hpc_train.prepare.images.lists import class_lines, list_lines, shown
from hpc_train.prepare.images.published import annotated_lines
from hpc_train.prepare.sources import stratified_split

_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
_ENDINGS = (".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm")
_MOST_CLASSES = 2**31
# Folder of images of all classes, in Tiny ImageNet.
_FLAT = "images"


@dataclass(frozen=True)
class Images:
    """The images of a split.

    Args:
        paths: of n image files, below the input folder.
        targets: their classes, (n,), of the smallest unsigned type.
    """

    paths: list[str]
    targets: np.ndarray


@dataclass(frozen=True)
class ImageSet:
    """The images of all splits.

    Args:
        splits: by name.
        classes: number of classes.
        class_names: readable names; empty where the lists have only numbers.
        asides: paths of files that were skipped: they are not named like images, or have no class.
    """

    splits: dict[str, Images]
    classes: int
    class_names: tuple[str, ...]
    asides: list[str]


def find_images(root, lists=(), class_names=None, test_fraction=None) -> ImageSet:
    """Find the images below the folder `root`.

    Args:
        root: the input folder.
        lists, class_names, test_fraction: the options of `hpc-train prepare image-folder`.

    Raises:
        UserError: there are no images, or their classes are not known.
    """
    root = Path(root)
    # Not Path.is_dir, which raises an error if a name is too long.
    if not os.path.isdir(root):
        raise UserError(f"{root}: not a folder; give the folder of the images with --input")
    lines = {split: list_lines(root, path) for split, path in _by_split(lists).items()}
    folders = {split: path for split, path in _split_folders(root).items() if split not in lines}
    if not lines and not folders:
        if test_fraction is None:
            raise UserError(f"{root}: has no folder `train`; give --test-fraction, for example 0.2")
        folders = {"train": root}
    found, asides = {}, []
    for split, folder in list(folders.items()):
        if split != "train" and set(_class_folders(folder)) <= {_FLAT} and (known := annotated_lines(root, folder)):
            lines[split] = known
            del folders[split]
    if "test" in folders and set(_class_folders(folders["test"])) <= {_FLAT}:
        # Challenges such as ImageNet's publish test images without classes.
        asides.append(folders.pop("test").name)
    if class_names:
        order, names = _of_training(*class_lines(class_names), folders.get("train"), class_names)
    else:
        order = _order(root, lines, folders)
        names = tuple(map(shown, order))
    numbers = {name: number for number, name in enumerate(order)}
    for split, folder in folders.items():
        found[split] = _in_class_folders(root, split, folder, numbers, asides)
    for split, split_lines in lines.items():
        found[split] = _in_list(root, split, split_lines, numbers)
    # If the lists have only numbers, the largest one gives the number of classes.
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


def _of_training(order, names, train, path):
    """The classes of a file; without those that have no folder, where these are most: WordNet's words are not a list.

    Args:
        order, names: of the classes that the file at `path` lists.
        train: the folder with the training images, or None.
    """
    there = set(_class_folders(train)) if train else set()
    kept = [(folder, name) for folder, name in zip(order, names, strict=True) if folder in there]
    if not kept or 2 * len(kept) >= len(order):
        return order, names
    say(f"{path}: {len(order) - len(kept)} of its {len(order)} classes have no folder in {train}, and are left out")
    return [folder for folder, _ in kept], tuple(name for _, name in kept)


def _by_split(lists):
    found = {}
    for text in lists:
        split, _, path = text.partition("=")
        if parse_shard_name(shard_name(split, 0, 1)) is None:
            raise UserError(f"--lists {text}: {split!r} cannot name a split; use lower-case letters, digits and _")
        if split in found:
            raise UserError(f"--lists {text}: a second list of {split}; give only one")
        found[split] = path
    return found


def _split_folders(root):
    """{split: folder} of the folders that are named after splits."""
    found = {}
    for split, names in _FOLDERS.items():
        there = [root / name for name in names if (root / name).is_dir()]
        if len(there) > 1:
            raise UserError(f"{root}: has both {there[0].name} and {there[1].name}; keep only one of them")
        if there:
            found[split] = there[0]
    return found


def _order(root, lines, folders):
    """Names of the classes if no file lists them: those of the training folders, else those in the lists."""
    train = folders.get("train") or _split_folders(root).get("train")
    order = _class_folders(train) if train else []
    if order:
        return order
    if "train" in folders:
        raise _flat(train, "train")
    if "train" not in lines:
        raise UserError(
            f"{root}: no training images, and so no folders that name the classes; give the classes with --class-names"
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
                f"{folder / shown(name)}: not the name of a class (a training folder, or a line of --class-names); "
                "rename the folder or move it away"
            )
        before = len(paths)
        _walk(folder / name, os.path.normpath(f"{below}/{name}"), paths, asides)
        targets += [numbers[name]] * (len(paths) - before)
    if not paths:
        raise UserError(f"{folder}: its class folders hold no images; give another folder with --input")
    return paths, targets


def _flat(folder, split):
    return UserError(f"{folder}: no class folders; give the classes with --lists {split}=FILE, one line for each image")


def _class_folders(folder):
    return [entry.name for entry in _entries(folder) if _is_folder(entry) and not entry.name.startswith(".")]


def _walk(folder, below, paths, asides):
    """Append the images of a class folder and its subfolders; links to folders are skipped, they may be circular."""
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
    # A circular link, or a link to a place without permission.
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
            least = f"class numbers must be below {_MOST_CLASSES}"
            raise UserError(f"{where}: no class {shown(label)!r}; {some if numbers else least}")
        targets.append(number)
    return [os.path.join(base, path) for path, _, _ in lines], targets


def _split_off(root, splits, test_fraction):
    if "test" in splits or "train" not in splits:
        raise UserError(f"{root}: has a test part already, or no training part; leave out --test-fraction")
    train = splits["train"]
    for split, (chosen, targets) in stratified_split(np.arange(len(train.paths)), train.targets, test_fraction).items():
        splits[split] = Images([train.paths[place] for place in chosen], targets)
