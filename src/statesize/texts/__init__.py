"""Texts in, token ids out.

`documents` reads a file of any kind, by `tables` where it is Parquet or a data set; `rows` makes a document of a row;
`tokens` knows the tokenizers, `token_files` files of ids; `inputs` makes sequences of ids, `stream` those of text that
comes piece by piece.
"""
