"""The profile that users hold: a model's effective state-size over layers, heads, sequences and positions."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import pandas as pd
import xarray as xr

from statesize.adapters.observation import SHARED
from statesize.check import refuse, require_index, require_path
from statesize.errors import InputError
from statesize.io.json_values import json_values
from statesize.report.charts import ProfileCharts
from statesize.report.result import Result
from statesize.report.table import PageTable, layer_table, legend_lines, short_names
from statesize.report.vega import Metric, metric_title
from statesize.report.words import every_token, headline, middle_cut, run_sentence
from statesize.results.fields import COUNTS, arrays
from statesize.results.profiled import Profiled, layer_name
from statesize.results.store import node_name, read_tree, write_tree
from statesize.results.summary import SummaryRow, average, ess_values, unit_dim

if TYPE_CHECKING:
    from statesize.adapters import Captured
    from statesize.report.result_page import ResultPage


@dataclass(frozen=True, repr=False)
class Profile(Result, Profiled):
    """The result of `statesize.profile`.

    Attributes:
        tree: All that was measured: tokens and attributes at the root, one node per mixer. See `to_xarray`.
        model: Name of the model.
        mixers: Names of the mixers, in the order in which the model calls them.
        tokens: Token ids, their texts and lengths, (sequence, token).
        attributes: Versions, digests and settings.
        limits: What limits the numbers of each mixer, or why a layer has none.
        not_measured: The layers that mix positions and could not be measured, with the cause.
        plot: The charts, such as `.plot.layers()`.
    """

    recapture: Callable[[str, int], Captured] | None = field(default=None, compare=False)
    all_numbers = ".summary()"

    @property
    def headline(self) -> str:
        """What the model carries past the middle of its texts."""
        return headline(self)

    @property
    def legend(self) -> list[str]:
        """A line for each code of the table, with its layers."""
        return legend_lines(self.codes, short_names([*self.limits]))

    @property
    def file_name(self) -> str:
        """The model's name without that of its owner."""
        return self.model.rpartition("/")[2]

    @property
    def plot(self) -> ProfileCharts:
        """The charts `.plot.layers()`, which `.plot()` gives, and `.plot.positions()`."""
        return ProfileCharts([self])

    def table(self) -> PageTable:
        """The layers by ESS."""
        return layer_table(json_values(self._document(self.summary_rows())))

    def _document(self, rows: Sequence[SummaryRow]) -> dict[str, Any]:
        """What a table of some rows, and the lines about it, are made of."""
        return {
            "headline": self.headline,
            "cut": middle_cut(self),
            "measured": every_token(self),
            "run": run_sentence(self.quantities),
            "sequences": self.tokens.sizes["sequence"],
            "mixers": rows,
            "lost": self._lost_rows(),
            "limits": self.codes,
        }

    def _lost_rows(self) -> list[SummaryRow]:
        return [
            {"model": self.model, "layer": name, "kind": "not measured", "limits": [cause.code.value]}
            for name, cause in self.not_measured.items()
        ]

    def page(self) -> ResultPage:
        """The page, with the map of heads."""
        from statesize.report.page import page

        return page([self])

    def summary(self) -> pd.DataFrame:
        """One row per mixer; `statesize.results.fields.FIELDS` says what the columns are.

        A layer that mixes positions and could not be measured has a row without numbers, with its code in `limits`.

        Returns:
            A table with the columns of layers.
        """
        return pd.DataFrame([*self.summary_rows(), *self._lost_rows()])

    def ess(self, layer: int | str | None = None, sequence: int = 0, metric: Metric = "entropy") -> pd.DataFrame:
        """The ESS before each token of a sequence: of the heads of a layer, or of each layer, the mean over its heads.

        Args:
            layer: One of `mixers`, by name or index; None takes all.
            sequence: Index of the sequence.
            metric: "entropy", "relative_count" or "count"; the first threshold of the latter two.

        Returns:
            One row per head or channel of the layer, or one per layer; one column per position that was measured, with
            its token.

        Example:
            >>> from statesize import profile
            >>> measured = profile("gla", [[5, 6, 7, 8]])
            >>> measured.ess().shape, measured.ess(0).shape
            ((4, 4), (4, 4))
        """
        metric_title(metric)
        require_index("sequence", sequence, self.tokens.sizes["sequence"])
        if layer is None:
            means = {
                name: pd.Series(ess_values(node, metric)[sequence].mean(0), index=node["position"].values)
                for name, node in ((name, self.mixer(name)) for name in self.mixers)
            }
            frame = pd.DataFrame(means).T.rename_axis("layer")
        else:
            node = self.mixer(layer)
            frame = pd.DataFrame(ess_values(node, metric)[sequence], columns=node["position"].values)
            frame = frame.rename_axis(unit_dim(node))
        tokens = self.tokens["tokens"].values[sequence]
        columns = [(int(at), str(tokens[at])) for at in frame.columns]
        return frame.set_axis(pd.MultiIndex.from_tuples(columns, names=["position", "token"]), axis=1)

    def operator(self, layer: int | str, head: int = 0, sequence: int = 0) -> xr.DataArray:
        """T of a head or channel: the model runs once more over the sequence.

        Args:
            layer: One of `mixers`, by name or index.
            head: Index of the head or channel.
            sequence: Index of the sequence.

        Returns:
            T, (output, input), (L, L), with the tokens of rows and columns as coordinates.

        Raises:
            InputError: The profile was read from a folder or made on Ray, so that no model is at hand.

        Example:
            >>> from statesize import profile
            >>> profile("gla", [[5, 6, 7, 8]]).operator(0, head=3).sizes
            Frozen({'output': 4, 'input': 4})
        """
        name = layer_name(self.mixers, layer)
        require_index("sequence", sequence, self.tokens.sizes["sequence"])
        if self.recapture is None:
            raise InputError("operator must have the model at hand, got a stored profile. Call ss.profile(model, …).")
        captured = self.recapture(name, sequence)
        if not 0 <= head < captured.units:
            refuse("head", f"an index of 0 … {captured.units - 1}", head)
        matrix = captured.units_operator(slice(head, head + 1)).dense()[0, 0].double().cpu().numpy()
        places, tokens = np.arange(len(matrix)), self.tokens["tokens"].values[sequence, : len(matrix)]
        coordinates = {dim: places for dim in ("output", "input")}
        coordinates |= {f"{dim}_token": (dim, tokens) for dim in ("output", "input")}
        return xr.DataArray(matrix, coordinates, ("output", "input"), f"T of {name}, {head}")

    def to_dict(self) -> dict[str, Any]:
        """What `statesize profile --json` prints and `profile.json` holds: how it was measured, and its figures.

        Returns:
            `mixers` has the columns of layers of each mixer, how many channels each unit has (`multiplicity`), and the
            mean of counts and of their bounds at each threshold; `lost` has the layers that could not be measured;
            `limits` says what each code means.
        """
        asked = ("model", "tolerances", "relative_tolerances", "settings", "source", "threads", "skipped", "truncation")
        mixers = list[SummaryRow]()
        for row in self.summary_rows():
            node = self.mixer(row["layer"])
            counts = {name: node[name].values for kind in COUNTS for name in kind[:3]}
            means = {
                f"average_{name}": [average(node, values[..., at]).mean for at in range(values.shape[-1])]
                for name, values in counts.items()
            }
            mixers.append({**row, "multiplicity": int(node.attrs["multiplicity"]), **means})
        facts = {"tokens": int(self.tokens["length"].sum())}
        return json_values({name: self.tree.attrs.get(name) for name in asked} | self._document(mixers) | facts)

    def to_xarray(self) -> xr.DataTree:
        """A copy of the tree, free to be changed, whose arrays say what they are: tokens, and a node per mixer."""
        tree = self.tree.copy(deep=True)
        for node in tree.children.values():
            for name, array in arrays().items():
                if name in node.variables:
                    node[name].attrs = {"long_name": array.meaning, "units": array.unit}
        return tree

    def save(self, path: str | PathLike[str]) -> Path:
        """Write the profile as a folder of `profile.json` and safetensors.

        A profile that is already there is replaced once the new one is complete.
        A path that is a file, a folder without a profile, or not writable is a FileError.

        Args:
            path: The folder.

        Returns:
            The folder.
        """
        folder = require_path("path", path)
        names = {node_name(name): name for mixer in self.mixers for name in (mixer, mixer + SHARED)}
        nodes = {names[key]: node.to_dataset(inherit=False) for key, node in self.tree.children.items()}
        write_tree(folder, {"": self.tokens, **nodes}, self.to_dict())
        return folder

    @classmethod
    def load(cls, path: str | PathLike[str]) -> Self:
        """Read a profile that `save` wrote.

        One that is missing, damaged or of an unknown schema version is a FileError.

        Args:
            path: The folder.

        Returns:
            The profile.

        Raises:
            InputError: If the path is no path.
        """
        return cls(read_tree(require_path("path", path)))
