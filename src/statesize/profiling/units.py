"""What a long run has finished, one file for each mixer of each sequence, so that a killed run can go on."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import re
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

from torch import Tensor, nn

from statesize.errors import FileError
from statesize.files import LOCK, parse_json, replace_file
from statesize.loading.digests import model_facts, tokens_sha256
from statesize.results.record import SequenceRecord, sealed, unsealed
from statesize.results.settings import Settings

MARKER = "unfinished.json"
_FORMAT = {"format": "statesize-units", "schema": 1}
_OWN = re.compile(rf"\d{{6,}}|{re.escape(LOCK)}|\.statesize-.*|\..*\.part")
_CALLS = ""  # no mixer has this name


def run_key(model: nn.Module, weights: str, settings: Settings, layers: object, reference: int | None) -> str:
    """A digest of everything but the input that a unit's numbers depend on.

    Args:
        model: The model; its structure and configuration count beside its weights.
        weights: Digest of its weights.
        settings: What is asked.
        layers: The choice of layers.
        reference: Tokens of the sequence that decides how many heads or channels are measured.

    Returns:
        SHA-256 as 64 hexadecimal digits.
    """
    parts = {
        **model_facts(model, weights),
        "settings": dataclasses.asdict(settings),
        "layers": layers,
        "reference": reference,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True, default=repr).encode()).hexdigest()


@dataclasses.dataclass(frozen=True)
class Units:
    """Finished units of one run, as files.

    Attributes:
        folder: Where they lie; other runs may have units there too.
        key: Digest of the run.
    """

    folder: Path
    key: str

    def open(self) -> None:
        """Make the folder, or see that it is one of units.

        Raises:
            FileError: If it holds something else, or cannot be written.
        """
        path = self.folder / MARKER
        if self.folder.exists() and not path.is_file() and not (self.folder.is_dir() and _only_units(self.folder)):
            raise FileError(f"{self.folder} is there and holds no unfinished profile; it is left alone. Move it away.")
        replace_file(path, json.dumps(_FORMAT).encode())

    def read(self, sequence: int, ids: Tensor, mixer: str) -> SequenceRecord | None:
        """A finished unit.

        Args:
            sequence: Index of the sequence.
            ids: Its tokens.
            mixer: Name of the mixer.

        Returns:
            The record, or None where there is none or its file is damaged.
        """
        content = _content(self._path(sequence, ids, mixer))
        return None if content is None else SequenceRecord.from_bytes(content)

    def write(self, sequence: int, ids: Tensor, record: SequenceRecord) -> None:
        """Keep a finished unit.

        Args:
            sequence: Index of the sequence.
            ids: Its tokens.
            record: What was measured.
        """
        replace_file(self._path(sequence, ids, record.name), record.to_bytes())

    def finish(self, sequence: int, ids: Tensor, mixers: Sequence[str], skipped: dict[str, str]) -> None:
        """Note that all mixers of a sequence are finished.

        Args:
            sequence: Index of the sequence.
            ids: Its tokens.
            mixers: Their names, in the order in which they were called.
            skipped: What was not measured, and why.
        """
        facts = {"mixers": list(mixers), "skipped": skipped}
        replace_file(self._path(sequence, ids, _CALLS), sealed(json.dumps(facts).encode()))

    def finished(self, sequence: int, ids: Tensor) -> tuple[list[str], dict[str, str]] | None:
        """What `finish` noted.

        Args:
            sequence: Index of the sequence.
            ids: Its tokens.

        Returns:
            Names of the mixers, and what was skipped with reasons; None where that is not known.
        """
        content = _content(self._path(sequence, ids, _CALLS))
        payload = None if content is None else unsealed(content)
        if payload is None:
            return None
        try:
            facts = cast("Any", parse_json(payload))
            mixers, skipped = list(map(str, facts["mixers"])), dict[str, str](facts["skipped"])
        except (ValueError, TypeError, KeyError, AttributeError):
            return None
        return mixers, skipped

    def whole(self, sequence: int, ids: Tensor) -> tuple[list[str], dict[str, str]] | None:
        """What `finish` noted, if all units of the sequence are intact.

        Args:
            sequence: Index of the sequence.
            ids: Its tokens.

        Returns:
            As `finished`.
        """
        facts = self.finished(sequence, ids)
        # No record is kept, so that no more than one is in memory.
        return facts if facts and all(self.read(sequence, ids, name) is not None for name in facts[0]) else None

    def remove(self) -> None:
        """Remove the folder, the units of other runs included, once the profile is written."""
        shutil.rmtree(self.folder, ignore_errors=True)

    def _path(self, sequence: int, ids: Tensor, part: str) -> Path:
        digest = hashlib.sha256(f"{self.key} {tokens_sha256([ids])} {part}".encode()).hexdigest()
        return self.folder / f"{sequence:06d}" / f"{digest[:32]}.unit"


def _only_units(folder: Path) -> bool:
    """Whether all that a folder holds is that of units, whose marker another program has removed."""
    return all(_OWN.fullmatch(path.name) for path in folder.iterdir())


def _content(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except OSError:
        return None
