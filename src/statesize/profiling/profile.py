"""The profile that users hold: a model's effective state-size over layers, heads, sequences and positions."""

from __future__ import annotations

import html
import math
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from textwrap import shorten
from typing import Any, Self, cast

import pandas as pd
import xarray as xr

from statesize.check import require_index, require_kind, require_path, require_text
from statesize.codes import Code
from statesize.errors import InputError
from statesize.io.json_values import json_values
from statesize.io.text import counted, listed
from statesize.report.chart_tables import Metric, metric_title
from statesize.report.charts import ProfileCharts
from statesize.report.frames import GroupFrame, LayerFrame, NumberFrame, PositionFrame
from statesize.report.names import by_reason, cuts_name, kind_title
from statesize.report.tables import layer_rows
from statesize.report.words import left_out_note, model_line
from statesize.results.datasets import shown_texts
from statesize.results.fields import COLUMNS, COUNTS, GROUP_COLUMNS, MAIN_COLUMNS, number_text
from statesize.results.profiled import Profiled, group_rows, has_sinks
from statesize.results.store import load_tree, save_tree
from statesize.results.summary import average, ess_values, long_form


class Profile(Profiled):
    """The result of `statesize.profile`.

    Attributes:
        tree: All that was measured: tokens and attributes at the root, one node per mixer. See `to_xarray`.
        model: Name of the model.
        mixers: Names of the mixers, in the order in which the model calls them.
        tokens: Token ids, their texts and lengths, (sequence, token).
        attributes: Versions, digests and settings.
        notes: What is to know of some mixers, with their names.
        not_measured: The layers that mix positions and could not be measured, with the cause.
        plot: The charts, such as `.plot.layers()`.
    """

    def summary(self, *, wide: bool = False) -> pd.DataFrame:
        """One row per mixer: averages and totals over sequences, positions 1 … L−1 and heads.

        A layer that mixes positions and could not be measured has a row without numbers, with the cause.

        Args:
            wide: All columns, totals and errors among them.

        Returns:
            The columns of `statesize.results.fields.MAIN_COLUMNS`, or of `COLUMNS`, which says what they are; the
            relative tolerance is the first of the profile.
        """
        unknown, parts, incomplete = "Its state size is unknown.", self.limited(Code.PART), self.incomplete
        rows = [
            {**row, "cause": " ".join(filter(None, (unknown if math.isnan(row["tss"]) else "", part, few)))}
            for row in self.summary_rows()
            for part, few in [(parts.get(row["layer"], ""), str(incomplete.get(row["layer"], "")))]
        ]
        lost = [
            {"model": self.model, "layer": name, "kind": "not measured", "cause": str(cause)}
            for name, cause in self.not_measured.items()
        ]
        return LayerFrame([*rows, *lost], columns=pd.Index(list(COLUMNS if wide else MAIN_COLUMNS)))

    def groups(self) -> pd.DataFrame:
        """One row per mixer whose heads share what it stores: numbers stored, joint ESS, and the sum of the heads' own.

        Returns:
            The columns of `statesize.results.fields.GROUP_COLUMNS`, with errors; no rows where nothing is shared.
        """
        return GroupFrame(group_rows(self), columns=pd.Index(list(GROUP_COLUMNS)))

    def ess(self, layer: int | str | None = None, sequence: int = 0, metric: Metric = "entropy") -> pd.DataFrame:
        """The ESS before each token of a sequence: of the heads of a layer, or of each layer, the mean over its heads.

        Attention sinks are included. Without them, entropy-ESS is known at the middle alone: of each head in
        `mixer(layer)["sinkless_entropy"]`, NaN where it has no sink, and of each layer in `summary()`.

        Args:
            layer: One of `mixers`, by name or index; None takes all.
            sequence: Index of the sequence.
            metric: "entropy", "relative_count" or "count"; the first threshold of the latter two.

        Returns:
            One row per head or channel of the layer, or one per layer; one column per position that was measured, with
            its token.

        Example:
            >>> from statesize import profile
            >>> from transformers import MambaConfig, MambaForCausalLM
            >>> model = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=2))
            >>> measured = profile(model, [[5, 6, 7, 8]])
            >>> measured.ess().shape, measured.ess("backbone.layers.0.mixer").shape, measured.ess(0).shape
            ((2, 4), (16, 4), (16, 4))
        """
        metric_title(metric)
        require_index("sequence", sequence, self.tokens.sizes["sequence"])
        if layer is not None:
            node = self.mixer(layer)
            frame = pd.DataFrame(ess_values(node, metric)[sequence], columns=node["position"].values)
            return self._with_tokens(frame.rename_axis(str(node["norm"].dims[1])), sequence)
        nodes = {name: self.mixer(name) for name in self.mixers}
        means = {
            name: pd.Series(ess_values(node, metric)[sequence].mean(0), index=node["position"].values)
            for name, node in nodes.items()
        }
        return self._with_tokens(pd.DataFrame(means).T.rename_axis("layer"), sequence)

    def _with_tokens(self, frame: pd.DataFrame, sequence: int) -> PositionFrame:
        tokens = self.tokens["tokens"].values[sequence]
        columns = [(int(at), str(tokens[at])) for at in frame.columns]
        frame.columns = pd.MultiIndex.from_tuples(columns, names=["position", "token"])
        return PositionFrame(frame)

    def to_dataframe(self) -> pd.DataFrame:
        """One row for each mixer, sequence, head, position from 1 on, metric and threshold.

        Returns:
            Columns layer, head, position, ess, metric, threshold, token, sequence, ceiling, state_size, lower, upper,
            norm, token_id, kind, model.
        """
        frames = [long_form(self.mixer(name), self.tokens, self.model, name) for name in self.mixers]
        return NumberFrame(pd.concat(frames, ignore_index=True))

    def to_dict(self) -> dict[str, Any]:
        """What `statesize profile --json` prints: how it was measured, and its figures.

        Returns:
            `mixers` has the columns of `statesize.results.fields.COLUMNS` of each mixer, its notes, how many channels
            each unit has (`multiplicity`), and the mean of counts and of their bounds at each threshold; `groups` has
            those of `groups()`.
        """
        asked = ("model", "tolerances", "relative_tolerances", "settings", "source", "threads", "skipped")
        lengths = self.tokens["length"]
        mixers: list[dict[str, Any]] = []
        for row in self.summary_rows():
            node = self.mixer(row["layer"])
            counts = {name: node[name].values for kind in COUNTS for name in kind[:3]}
            means = {
                f"average_{name}": [average(node, values[..., at]).mean for at in range(values.shape[-1])]
                for name, values in counts.items()
            }
            own = {"notes": node.attrs["notes"], "multiplicity": int(node.attrs["multiplicity"])}
            mixers.append({**row, **own, **means})
        figures = {"sequences": lengths.size, "tokens": int(lengths.sum()), "mixers": mixers}
        return json_values({name: self.tree.attrs.get(name) for name in asked} | figures | {"groups": group_rows(self)})

    def to_xarray(self) -> xr.DataTree:
        """A copy of the tree, free to be changed.

        Returns:
            Tokens and attributes at the root, one node per mixer.
        """
        return self.tree.copy(deep=True)

    def labelled(self, labels: Sequence[object] | Sequence[Sequence[object]]) -> Self:
        """The same profile with texts of one's own at the positions of tables and pages.

        Args:
            labels: One for each position, or a list of these for each sequence.

        Returns:
            A profile that shows them in place of tokens or numbers.

        Raises:
            InputError: If there are more or fewer than positions, or one is no Unicode text.

        Example:
            >>> from statesize import profile
            >>> from transformers import MambaConfig, MambaForCausalLM
            >>> model = MambaForCausalLM(MambaConfig(vocab_size=16, hidden_size=8, num_hidden_layers=2))
            >>> [label for _, label in profile(model, [[5, 6, 7, 8]]).labelled("ACGT").ess().columns]
            ['A', 'C', 'G', 'T']
        """
        root = self.tokens.copy()
        lengths, width = root["length"].values.tolist(), root.sizes["token"]
        each = all(isinstance(row, Sequence) and not isinstance(row, str) for row in labels)
        texts = cast("Sequence[Sequence[object]]", labels if each else [labels] * len(lengths))
        if [len(row) for row in texts] != lengths:
            raise InputError(
                f"labels must be one text for each position, {', '.join(map(str, lengths))} of them, got "
                f"{', '.join(str(len(row)) for row in texts)}."
            )
        for label in (str(label) for row in texts for label in row):
            require_text("labels", label)
        padded = [[*map(str, row), *[""] * (width - len(row))] for row in texts]
        root["tokens"] = root["tokens"].dims, shown_texts(padded)
        nodes = {f"/{name}": node.to_dataset(inherit=False) for name, node in self.tree.children.items()}
        return type(self)(xr.DataTree.from_dict({"/": root} | nodes))

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
        save_tree(self.tree, folder)
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
        require_kind("path", path, (str, PathLike), "that of a profile")
        return cls(load_tree(Path(path)))

    @property
    def plot(self) -> ProfileCharts:
        """The charts `.plot.layers()`, which `.plot()` gives, `.plot.positions()`, `.spectrum()` and `.tolerance()`."""
        return ProfileCharts(self)

    def to_html(self, path: str | PathLike[str] | None = None) -> Path:
        """Write a report of one self-contained HTML file; a path that cannot be written is a FileError.

        Args:
            path: The file; replaced if it exists. None takes the model's name in this folder, such as gla.html.

        Returns:
            The file.
        """
        from statesize.report import write_report

        return write_report([self], path or f"{self.model.rpartition('/')[2]}.html")

    @property
    def _bundled(self) -> str:
        """That the texts are none of the caller's."""
        source = cast("dict[str, str]", self.tree.attrs.get("source") or {})
        return f" ({source['texts']})" if "texts" in source else ""

    def _repr_html_(self) -> str:
        rows = [
            {
                "layer": name,
                "kind": kind_title(str(self.mixer(name).attrs["kind"])),
                "ESS at the middle (entropy)": row.ess,
                "without sinks": row.sinkless,
                "ceiling": number_text(row.ceiling, ",.0f"),
                "used at the middle": row.share,
            }
            for name, row in zip(self.mixers, layer_rows(self, "entropy"), strict=True)
        ]
        frame = pd.DataFrame(rows) if has_sinks(self) else pd.DataFrame(rows).drop(columns="without sinks")
        table = frame.to_html(index=False, escape=True)
        lost = "".join(
            f"<p>{html.escape(name)} was not measured: {html.escape(str(cause))}</p>"
            for name, cause in self.not_measured.items()
        )
        count = f"{self.tree.sizes['sequence']}{self._bundled}"
        title = f"<p>Profile of <b>{html.escape(self.model)}</b>, sequences: {count}</p>"
        return f"{title}<p>{html.escape(model_line(self))}</p>{table}{lost}"

    def __repr__(self) -> str:
        """What was found, the layers with most and least, what is missing, the first note, and what to do next.

        Returns:
            Lines of text.
        """
        sequences, lost = self.tree.sizes["sequence"], by_reason(self.not_measured)
        layers = f"{len(self.mixers)} of {len(self.mixers) + len(self.not_measured)}" if lost else len(self.mixers)
        first = self.mixers[0] if self.mixers else "NAME"
        # Modules of a sequential are named by numbers alone.
        named = ((f"{'layer ' * names[0][0].isdigit()}{listed(names)}", note) for note, names in self.notes.items())
        notes = [f"{names}: {note}" for names, note in named]
        told = (
            [f"{counted(len(notes), 'note')}, in .notes: {shorten(notes[0], 240, placeholder=' …')}"] if notes else []
        )
        return "\n".join(
            [
                f"Profile of {self.model}, sequences: {sequences}{self._bundled}, layers: {layers}, {cuts_name(self)}",
                model_line(self),
                *(f"{names} was not measured: {cause}" for names, cause in lost.items()),
                *filter(None, [left_out_note(self)]),
                *told,
                f"next: .summary(), .ess({first!r}), .to_html()",
            ]
        )
