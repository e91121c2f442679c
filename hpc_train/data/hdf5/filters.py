"""HDF5 filters: the names of those of a data set, and the plugins that provide them."""

import h5py

NOT_COMPRESSING = frozenset({"shuffle", "fletcher32"})
# https://github.com/HDFGroup/hdf5_plugins/blob/master/docs/RegisteredFilterPlugins.md
_NAMES = {
    1: "gzip",
    2: "shuffle",
    3: "fletcher32",
    4: "szip",
    5: "nbit",
    6: "scaleoffset",
    307: "bzip2",
    32000: "lzf",
    32001: "blosc",
    32004: "lz4",
    32008: "bitshuffle",
    32013: "zfp",
    32015: "zstd",
    32017: "sz",
    32024: "sz3",
    32026: "blosc2",
}


def filter_names(dataset: h5py.Dataset) -> list[str]:
    """Names of the filters of a data set, in the order in which writing applies them."""
    plist = dataset.id.get_create_plist()
    numbers = (plist.get_filter(place)[0] for place in range(plist.get_nfilters()))
    return [_NAMES.get(number, f"filter {number}") for number in numbers]


def load_plugins() -> None:
    """Register the filters of hdf5plugin with HDF5."""
    import hdf5plugin  # noqa: F401
