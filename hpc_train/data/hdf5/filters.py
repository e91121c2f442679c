"""HDF5 filters: the names of those of a data set, and the plugins that provide them."""

import h5py

NOT_COMPRESSING = frozenset({"shuffle", "fletcher32"})
_BITSHUFFLE = 32008
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


def missing_filter(dataset: h5py.Dataset) -> str | None:
    """What a data set needs and HDF5 lacks: the filter, and the package that brings it; None where it has all.

    Filters that its first chunk was written without are not needed.
    """
    plist = dataset.id.get_create_plist() if dataset.chunks else None
    for place in range(plist.get_nfilters() if plist else 0):
        number, _, values, stored = plist.get_filter(place)
        # The plugin divides by it, and ends the process.
        if number == _BITSHUFFLE and len(values) > 2 and not values[2]:
            return "has bitshuffle for elements of 0 bytes, so its header is damaged; fetch or write the file again"
        if h5py.h5z.filter_avail(number):
            continue
        load_plugins()
        if h5py.h5z.filter_avail(number) or not dataset.id.get_num_chunks():
            continue
        if dataset.id.get_chunk_info(0).filter_mask >> place & 1:
            continue
        name = _NAMES.get(number) or stored.decode(errors="replace").strip("\0") or "unknown"
        package = (
            "`pip install -U hdf5plugin` brings it"
            if number in _NAMES
            else (
                "install the plugin that its writer used, and name its folder in HDF5_PLUGIN_PATH "
                "(https://github.com/HDFGroup/hdf5_plugins lists them)"
            )
        )
        return f"needs filter {number} ({name}), which is not installed; {package}"
    return None
