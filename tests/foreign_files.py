"""HDF5 files that the suite did not write, of every kind that HDF5 has, made by hypothesis."""

from dataclasses import dataclass, field

import h5py
import numpy as np
from chunked import DTYPES, FILTERS
from h5py import h5d, h5p, h5s, h5t
from hypothesis import strategies as st

LIBVERS = ["earliest", "v108", "v110", "latest"]
ORDERS = {"<": h5t.ORDER_LE, ">": h5t.ORDER_BE}
PADS = [h5t.PAD_ZERO, h5t.PAD_ONE]
# HDF5 types that are no numbers of at most 64 bits, each with a word of the line that must refuse it.
REFUSED = {
    "float128": lambda: h5t.NATIVE_LDOUBLE,
    "complex64": lambda: h5t.py_create(np.dtype("c8"), logical=True),
    "complex128": lambda: h5t.py_create(np.dtype(">c16"), logical=True),
    "text": lambda: h5t.py_create(np.dtype("S7"), logical=True),
    "compound": lambda: h5t.py_create(np.dtype([("a", "<i4"), ("b", "<f8")]), logical=True),
    "references": lambda: h5t.STD_REF_OBJ,
    "opaque": lambda: h5t.create(h5t.OPAQUE, 5),
    "times": lambda: h5t.UNIX_D32LE,
    "variable length": lambda: h5t.vlen_create(h5t.STD_I32LE),
    "arrays": lambda: h5t.array_create(h5t.STD_I32LE, (2,)),
    "24 bits": lambda: _sized(h5t.STD_I32LE, 3),
    "128 bits": lambda: _sized(h5t.STD_U64BE, 16),
}


def _sized(base, size):
    made = base.copy()
    made.set_size(size)
    return made


@dataclass
class Foreign:
    """What `write` made."""

    refused: str = ""
    """A word of the line that must refuse the file; empty where every value must be read."""
    kind: list[str] = field(default_factory=list)
    """Words for what it is, for counting."""


@st.composite
def integers(draw):
    size, signed = draw(st.sampled_from([1, 2, 4, 8])), draw(st.booleans())
    made = getattr(h5t, f"STD_{'IU'[not signed]}{8 * size}LE").copy()
    made.set_order(draw(st.sampled_from(list(ORDERS.values()))))
    if draw(st.booleans()):
        # HDF5 writes no type that uses half of its bits or fewer.
        precision = draw(st.integers(4 * size + 1, 8 * size))
        made.set_precision(precision)
        made.set_offset(draw(st.integers(0, 8 * size - precision)))
        made.set_pad(draw(st.sampled_from(PADS)), draw(st.sampled_from(PADS)))
    return made


@st.composite
def floats(draw):
    name, bits = draw(st.sampled_from([("16", (16, 10, 5)), ("32", (32, 23, 8)), ("64", (64, 52, 11))]))
    made = getattr(h5t, f"IEEE_F{name}LE").copy()
    size, mantissa, exponent = bits
    what = draw(st.sampled_from(["plain", "plain", "bias", "fields", "norm", "pad"]))
    if what == "bias":
        made.set_ebias(draw(st.integers(1, 2 ** (exponent - 1))))
    elif what == "fields":
        mantissa, exponent = draw(st.integers(1, mantissa)), draw(st.integers(2, exponent))
        start = draw(st.integers(0, size - mantissa - exponent - 1))
        made.set_fields(start + mantissa + exponent, start + mantissa, exponent, start, mantissa)
        made.set_ebias(2 ** (exponent - 1) - 1)
    elif what == "norm":
        made.set_norm(h5t.NORM_MSBSET)
    elif what == "pad":
        made.set_inpad(draw(st.sampled_from(PADS)))
        made.set_pad(draw(st.sampled_from(PADS)), draw(st.sampled_from(PADS)))
    made.set_order(draw(st.sampled_from(list(ORDERS.values()))))
    return made


@st.composite
def enums(draw):
    base = np.dtype(draw(st.sampled_from(["<i1", ">i2", "<u4", ">i8"])))
    return h5t.py_create(h5py.enum_dtype({"none": 0, "some": 1, "all": 100}, base), logical=True)


def bitfields():
    return st.sampled_from([h5t.STD_B8LE, h5t.STD_B16BE, h5t.STD_B32LE, h5t.STD_B64BE])


def write(path, data) -> Foreign:
    """Write data set deep/x to `path`; `data` draws."""
    draw, made = data.draw, Foreign()
    shape = tuple(draw(st.lists(st.integers(1, 7), min_size=1, max_size=4)))
    if draw(st.integers(0, 7)) == 0:
        made.refused = draw(st.sampled_from(sorted(REFUSED)))
        stored = REFUSED[made.refused]()
    else:
        plain = st.sampled_from(DTYPES).map(lambda dtype: h5t.py_create(np.dtype(dtype)))
        stored = draw(plain | plain | plain | plain | integers() | floats() | enums() | bitfields())
        # With another exponent bias, 64 bits reach beyond float64.
        made.refused = "float128" if stored.dtype.itemsize > 8 else ""
    layout = draw(st.sampled_from(["chunked", "contiguous", "chunked", "chunked", "compact"]))
    libver = draw(st.sampled_from(LIBVERS))
    made.kind = [layout, libver, type(stored).__name__]
    most, plist = shape, h5p.create(h5p.DATASET_CREATE)
    if layout == "chunked":
        most = tuple(draw(st.sampled_from([extent, extent + 5, h5s.UNLIMITED])) for extent in shape)
        _chunk(plist, draw, shape, most, made)
    elif layout == "compact":
        plist.set_layout(h5d.COMPACT)
    if layout != "compact" and draw(st.booleans()):
        plist.set_alloc_time(draw(st.sampled_from([h5d.ALLOC_TIME_EARLY, h5d.ALLOC_TIME_LATE, h5d.ALLOC_TIME_INCR])))
    plist.set_fill_time(draw(st.sampled_from([h5d.FILL_TIME_IFSET, h5d.FILL_TIME_NEVER, h5d.FILL_TIME_ALLOC])))
    user = draw(st.sampled_from([0, 0, 0, 512]))
    way = draw(st.sampled_from(["here", "here", "here", "link", "virtual"]))
    made.kind.append(way)
    place = path if way == "here" else path.with_suffix(".source.h5")
    with h5py.File(place, "w", libver=(libver, "latest"), userblock_size=user) as file:
        space = h5s.create_simple(shape, most)
        try:
            dataset = h5d.create(file.id, b"deep/x", stored, space, plist, _with_groups())
        # Filters and allocation times that do not go with a type or a layout.
        except (ValueError, OSError, RuntimeError):
            dataset = h5d.create(file.id, b"deep/x", stored, h5s.create_simple(shape), None, _with_groups())
        _fill(dataset, draw, made)
        shape = dataset.shape
    if way != "here":
        _point_to(place, path, way, stored, shape)
    return made


def _point_to(source, path, way, stored, shape):
    """A file at `path` whose data set is that of the file `source`."""
    with h5py.File(path, "w") as file:
        if way == "link":
            file["deep/x"] = h5py.ExternalLink(source.name, "/deep/x")
            return
        space, plist = h5s.create_simple(shape), h5p.create(h5p.DATASET_CREATE)
        plist.set_virtual(space, source.name.encode(), b"/deep/x", space)
        h5d.create(file.id, b"deep/x", stored, space, plist, _with_groups())


def _with_groups():
    links = h5p.create(h5p.LINK_CREATE)
    links.set_create_intermediate_group(True)
    return links


def _chunk(plist, draw, shape, most, made):
    limits = [12 if full == h5s.UNLIMITED else full for full in most]
    chunk = tuple(draw(st.integers(1, limit)) for limit in limits)
    # Some filters divide by zero for types that are no numbers.
    name = draw(st.sampled_from(["none", "gzip"] if made.refused else [*FILTERS, "none", "none", "scaleoffset"]))
    made.kind.append(name)
    plist.set_chunk(chunk)
    if name == "scaleoffset":
        plist.set_scaleoffset(h5py.h5z.SO_INT, 0)
        return
    spec = dict(FILTERS[name])
    if spec.pop("shuffle", False):
        plist.set_shuffle()
    compression, options = spec.get("compression"), spec.get("compression_opts", ())
    if compression == "gzip":
        plist.set_deflate(4)
    elif compression:
        number = h5py.h5z.FILTER_LZF if compression == "lzf" else int(compression)
        plist.set_filter(number, h5py.h5z.FLAG_OPTIONAL, tuple(options))
    if spec.get("fletcher32"):
        plist.set_fletcher32()


def _fill(dataset, draw, made):
    """Write all, a part or nothing of a data set: any bits at all, as they would be stored; then let it change."""
    shape, stored = dataset.shape, dataset.get_type()
    how = draw(st.sampled_from(["all", "all", "part", "nothing"]))
    made.kind.append(how)
    # What points elsewhere in the file must be made by HDF5.
    if how != "nothing" and made.refused not in ("references", "variable length", "times"):
        start = tuple(draw(st.integers(0, extent - 1)) if how == "part" else 0 for extent in shape)
        count = tuple(extent - first for extent, first in zip(shape, start, strict=True))
        generator = np.random.default_rng(draw(st.integers(0, 5)))
        bits = np.frombuffer(generator.bytes(int(np.prod(count)) * stored.get_size()), f"V{stored.get_size()}")
        space = dataset.get_space()
        space.select_hyperslab(start, count)
        dataset.write(h5s.create_simple(count), space, bits.reshape(count).copy(), stored)
    most = dataset.get_space().get_simple_extent_dims(True)
    if most != shape and draw(st.booleans()):
        limits = [
            extent + 3 if full in (None, h5s.UNLIMITED) else full for extent, full in zip(shape, most, strict=True)
        ]
        dataset.set_extent(tuple(draw(st.integers(1, limit)) for limit in limits))
        made.kind.append("resized")
