"""What a model reads: the options that say it, and token ids out of them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, cast

from cyclopts import Parameter

from statesize.cli.shared.options import MOST, OFTEN, Count, Loading, MaxTokens, NoOption
from statesize.cli.shared.printing import tell_left_out
from statesize.errors import InputError
from statesize.io.progress import Bar, say
from statesize.io.text import counted

if TYPE_CHECKING:
    from torch import Tensor

    from statesize.models.load import LoadedModel
    from statesize.texts.tokens import AnyTokenizer

BUNDLED = "Reading bundled documents; --text FILE reads yours."
# Tokens in which a text's own are looked for.
_BEGINNING = 64


@Parameter(name="*")
@dataclass(frozen=True)
class Texts:
    """What the model reads: bundled documents without any of these.

    Attributes:
        text: A text file is one text. Of .jsonl and .parquet, and of a folder of .parquet, each row is a text or a
            chat; .json is a list of lists of token ids. Repeat for several.
        field: Field of the rows that holds the text.
        sequences: Read at most this many texts; truncate and cache take as many pieces of all texts.
        max_tokens: How many tokens of each text, or piece, are read.
    """

    text: Annotated[list[Path] | None, Parameter(group=OFTEN, negative="", metavar="PATH")] = None
    field: str = "text"
    sequences: Count | None = None
    max_tokens: MaxTokens = 512

    @property
    def needs_tokenizer(self) -> bool:
        """Whether anything that is read is text."""
        from statesize.texts.documents import IDS

        return self.text is None or any(path.suffix.lower() != IDS for path in self.text)

    def load(self, model: str, loading: Loading) -> LoadedModel:
        """The model, with a tokenizer unless it reads ids."""
        from statesize.models.load import load_model

        with Bar(f"loading {Path(model).name}"):
            return load_model(model, **asdict(loading), needs_tokenizer=self.needs_tokenizer)

    def read(self, tokenizer: AnyTokenizer | None, vocabulary: int | None) -> tuple[list[Tensor], int]:
        """Token ids of all texts, (L,) int64 each, L ≥ 2, below `vocabulary`, and how many of the texts were chats."""
        if self.text is None:
            from statesize.texts.inputs import bundled_sequences

            say(BUNDLED)
            return bundled_sequences(tokenizer, self.sequences or 1, self.max_tokens), 0
        left_out, chats, longest, sequences = list[str](), 0, 0, list["Tensor"]()
        for ids, is_chat in islice(self._sequences(tokenizer, vocabulary, left_out), self.sequences):
            longest = max(longest, len(ids))
            chats += is_chat
            sequences.append(ids[: self.max_tokens].clone())
        tell_left_out(left_out)
        if not sequences:
            raise InputError(
                "Texts must have 2 tokens of their own or more, got none that has: effective state-size is what passes "
                "from a past to a future. Give a longer text."
            )
        if chats:
            say(f"The tokenizer's chat template was applied to {chats:,} of {counted(len(sequences), 'text')}.")
        if longest > self.max_tokens:
            read = counted(sum(map(len, sequences)), "token")
            say(f"Reading the first {read}; --max-tokens takes more.")
        return sequences, chats

    def read_whole(
        self, tokenizer: AnyTokenizer | None, vocabulary: int | None, most: int | None = None
    ) -> list[Tensor]:
        """All sequences or the first ones in full, for commands that take pieces of them; else bundled documents."""
        from statesize.texts.inputs import bundled_sequences

        if self.text is not None:
            return replace(self, max_tokens=MOST, sequences=most).read(tokenizer, vocabulary)[0]
        say(BUNDLED)
        return bundled_sequences(tokenizer, most, None)

    def _sequences(
        self, tokenizer: AnyTokenizer | None, vocabulary: int | None, left_out: list[str]
    ) -> Iterator[tuple[Tensor, bool]]:
        """Token ids of each text, and whether it is a chat; what cannot be read is told in `left_out`."""
        from statesize.texts.documents import IDS, read_file, read_token_ids
        from statesize.texts.rows import RefusedChat
        from statesize.texts.tokens import special_ids, text_sequence

        for path in self.text or ():
            if path.suffix.lower() == IDS:
                yield from ((ids, False) for ids in read_token_ids(path, vocabulary))
                continue
            tokenizer = cast("AnyTokenizer", tokenizer)
            special, _ = special_ids(tokenizer)
            for number, document in enumerate(read_file(path, self.field, left_out.append, whole=True), 1):
                try:
                    ids = text_sequence(tokenizer, document, self.max_tokens)
                except RefusedChat as error:
                    left_out.append(str(error))
                    continue
                if sum(int(token) not in special for token in ids[:_BEGINNING]) < 2:
                    left_out.append(f"{path}, text {number}, has fewer than 2 tokens of its own")
                else:
                    yield ids, not isinstance(document, str)


def fitting_tokens(most: Sequence[int], asked: int, least: int) -> int:
    """The tokens of a piece, given how many each text allows: as asked, or such that most of the texts are read."""
    if max(most) >= asked:
        return asked
    half = sorted(most)[(len(most) - 1) // 2]
    size = max(least, min(length for length in most if length >= 0.75 * half))
    lost = f"; left out: {counted(shorter, 'text')}" if (shorter := sum(length < size for length in most)) else ""
    say(f"Pieces are of {size:,} tokens, not {asked:,}: the texts are too short{lost}.")
    return size


@dataclass(frozen=True)
class WholeTexts(Texts):  # noqa: D101 -- the help of its options is that of the others
    max_tokens: NoOption = MOST
