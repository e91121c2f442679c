"""A pytest plugin with the one thing of NumPy 1 that Horovod's tests rely on.

They ask whether an error, a float16 of 0.0, is less than 1e-8. NumPy 2 makes that number a float16 too, which is 0.0.
"""

import unittest

import numpy as np

_assert_less = unittest.TestCase.assertLess


def _compare_numbers(self, first, second, msg=None):
    _assert_less(self, float(first) if isinstance(first, np.floating) else first, second, msg)


def pytest_configure(config):
    unittest.TestCase.assertLess = _compare_numbers
