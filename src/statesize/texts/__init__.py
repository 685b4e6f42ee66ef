"""Texts in, token ids out.

`plain`, `jsonl`, `parquet` and `datasets` read documents, `documents` whichever a file is; `rows` makes a document of a
row; `tokens` knows the tokenizers; `inputs` makes sequences of ids, `stream` those of text that comes piece by piece.
"""
