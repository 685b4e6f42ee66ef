"""Profiles of earlier schema versions, as the present one has them."""

from __future__ import annotations

import numpy as np
import torch
import xarray as xr


def from_version_1(tree: xr.DataTree) -> xr.DataTree:
    """A profile of schema version 1 (statesize 0.1), in which all heads or channels were measured.

    Its bytes of state are those of the states at the operator's dtype, and its faithfulness is not known.

    Args:
        tree: The tree as it was read.

    Returns:
        A tree of schema version 2.
    """
    nodes = {"/": tree.to_dataset(inherit=False)}
    for name, node in tree.children.items():
        mixer = node.to_dataset(inherit=False)
        unit = "channel" if "channel" in mixer.sizes else "head"
        units, sequences = mixer.sizes[unit], mixer.sizes["sequence"]
        channels = units * int(mixer.attrs["multiplicity"])
        itemsize = getattr(torch, str(mixer.attrs["dtype"])).itemsize
        state_size = mixer["state_size"].values.astype(np.float64)
        # A sequence in which nothing was measured has NaN alone.
        largest = np.where(np.isfinite(state_size), state_size, -1).max(1, initial=-1)
        mixer = mixer.assign_coords({unit: np.arange(units)})
        mixer["stratum"] = (unit, np.zeros(units, np.int64))
        mixer["state_bytes"] = ("sequence", np.where(largest < 0, np.nan, largest * channels * itemsize))
        mixer["faithfulness"] = ("sequence", np.full(sequences, np.nan))
        mixer.attrs["stratum_sizes"] = [units]
        nodes[f"/{name}"] = mixer
    nodes["/"].attrs |= {"schema": 2, "settings": {}, "special_tokens": {}, "source": {}}
    return xr.DataTree.from_dict(nodes)
