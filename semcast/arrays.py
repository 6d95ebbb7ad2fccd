"""Numpy arrays and torch tensors alike.

What is not a network is written once, in the functions that the Array API standard names. numpy has them since 2.1; for
torch, which training uses, array-api-compat fills the gaps.
"""

from typing import Any

import numpy as np

Array = Any  # a numpy array or a torch tensor


def array_namespace(x: Array) -> Any:
    """The functions for arrays of x's kind: numpy, or the standard's on torch."""
    if isinstance(x, np.ndarray | np.generic):
        return np
    from array_api_compat import array_namespace

    return array_namespace(x)
