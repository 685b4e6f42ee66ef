"""How the bundled text and tokenizer and the figures of pages are made; run from the root of a checkout."""
