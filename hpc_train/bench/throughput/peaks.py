"""The peak speed of GPUs in dense matrix products, in TFLOP/s, by the names that their driver gives them.

The figures are from NVIDIA's data sheets of P100 (2016), V100 (2017, 2019), T4 (2018), A100 (2020), A30 and A40 (2021),
H100 (2022, 2024), L40S, GH200 (2023), H200, HGX B200 and GB200 (2024), without the factor of 2 for sparse matrices,
which training does not use. float32 is TF32 on tensor cores from Ampere on, as TensorFlow computes by default, and
plain float32 on older GPUs. float16 and bfloat16 are on tensor cores, except on P100, which has none. None: the GPU has
no such unit.
"""

# Part of the name: (float32, float16, bfloat16); the first part that the name contains counts.
_PEAKS = {
    "P100-SXM2": (10.6, 21.2, None),
    "P100-PCIE": (9.3, 18.7, None),
    "V100-SXM2": (15.7, 125.0, None),
    "V100S-PCIE": (16.4, 130.0, None),
    "V100-PCIE": (14.0, 112.0, None),
    "Tesla T4": (8.1, 65.0, None),
    "A100": (156.0, 312.0, 312.0),
    "NVIDIA A30": (82.0, 165.0, 165.0),
    "NVIDIA A40": (74.8, 149.7, 149.7),
    "L40S": (183.0, 362.0, 362.0),
    "H100 NVL": (417.5, 835.0, 835.0),
    "H100 PCIe": (378.0, 756.0, 756.0),
    "H100": (494.7, 989.4, 989.4),
    "H200 NVL": (417.5, 835.0, 835.0),
    "H200": (494.7, 989.4, 989.4),
    "GB200": (1250.0, 2500.0, 2500.0),
    "B200": (1100.0, 2250.0, 2250.0),
}
_PRECISIONS = "float32", "float16", "bfloat16"


def peak(gpu: str, precision: str) -> float | None:
    """TFLOP/s of a GPU; None if it is not known, as for a part of a GPU (MIG).

    Args:
        gpu: its name, such as "NVIDIA H100 80GB HBM3".
        precision: float32, float16 or bfloat16.
    """
    found = next((peaks for part, peaks in _PEAKS.items() if part in gpu and " MIG " not in gpu), None)
    return found and found[_PRECISIONS.index(precision)]
