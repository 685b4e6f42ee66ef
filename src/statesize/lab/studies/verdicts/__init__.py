"""The rules of verdicts, one place for all studies: a claim fixed before its runs, evidence by units, a verdict."""
