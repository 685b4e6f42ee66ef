"""How the bundled text, tokenizer and recall models are made; run from the root of a checkout."""
