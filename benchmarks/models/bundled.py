"""The four models that statesize bundles: `python -m benchmarks.models.bundled`."""

import sys

import torch

from benchmarks.models.making import Subject, loss, prose, put_on_record
from statesize.lab import zoo
from statesize.lab.mixers.model import LanguageModel
from statesize.report.names import kind_title

if __name__ == "__main__":
    for name in sys.argv[1:] or zoo.names():
        model, tokenizer = zoo.load(name)
        torch.manual_seed(0)
        untrained, pieces = LanguageModel(model.config).eval(), prose(tokenizer, 256)
        check = (
            f"read by statesize itself; {loss(model, pieces):.2f} nats per token over the 256 tokens of the record, "
            f"{loss(untrained, pieces):.2f} with untrained weights"
        )
        put_on_record(
            Subject(
                name.replace("-", "_"), f"bundled {kind_title(name)}", "statesize 0.1.0", "Apache-2.0", check,
                "tokens of prose", model, untrained, lambda length, read=tokenizer: prose(read, length),
            )
        )  # fmt: skip
