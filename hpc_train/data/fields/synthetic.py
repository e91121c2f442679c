"""The fields of `--data synthetic`: the shape of a sample, and the statistics of its values."""

import numpy as np

from hpc_train.data.catalogue.layout import CAM5, CAM5_CHANNELS, CLIMATE_CLASSES
from hpc_train.data.catalogue.part import Kind
from hpc_train.data.options import SYNTHETIC


def field_statistics(options):
    """The `data.statistics.Statistics` of the synthetic fields: standard normal values, all classes equally often."""
    from hpc_train.data.statistics import Statistics

    field = sample_of_fields(options)
    pixels = np.int64(options.synthetic_samples * np.prod(field["kinds"][1].shape))
    ones = np.ones(len(CAM5_CHANNELS))
    return Statistics(
        samples=options.synthetic_samples,
        count=np.full(len(ones), pixels),
        mean=0 * ones,
        m2=pixels * ones,
        # Hardly any value is beyond these.
        min=-6 * ones,
        max=6 * ones,
        not_finite=np.zeros(len(ones), np.int64),
        class_counts=np.full(field["classes"], pixels // field["classes"]),
        channel_names=CAM5_CHANNELS,
        class_names=field["class_names"],
    )


def sample_of_fields(options) -> dict:
    """The fields of the catalogue that describe a sample of the synthetic data."""
    shape, classes = tuple(options.field_size), options.classes or len(CLIMATE_CLASSES)
    return {
        "layout": CAM5,
        "kinds": (Kind((*shape, len(CAM5_CHANNELS)), "<f4"), Kind(shape, "|u1")),
        "classes": classes,
        "class_names": CLIMATE_CLASSES if classes == len(CLIMATE_CLASSES) else (),
        "fingerprint": f"{SYNTHETIC} {options.synthetic_samples} {shape} {classes}",
        "channel_names": CAM5_CHANNELS,
    }
