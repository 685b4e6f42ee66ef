"""Texts in, token ids out: files and data sets, documents and chats, tokenizers, sequences of ids."""
