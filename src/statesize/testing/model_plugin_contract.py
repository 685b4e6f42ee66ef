"""What every plug-in that brings models satisfies."""

from __future__ import annotations

import torch
from torch import nn

from statesize.models.capture import capture
from statesize.models.plugins import ModelPlugin
from statesize.texts.tokens import encode


class ModelPluginContract:
    """Checks of a `ModelPlugin`; inherit it as a class of tests.

    Attributes:
        plugin: The plug-in.
        known: Names and folders that it knows, one at least.
    """

    plugin: ModelPlugin
    known: tuple[str, ...]

    def test_names_are_known(self) -> None:
        """What it lists it can load, and it claims no model of others."""
        assert all(self.plugin.knows(name) for name in (*self.plugin.names(), *self.known))
        assert not self.plugin.knows("an-owner/a-model-of-the-hub")

    def test_models_are_ready(self) -> None:
        """A model is in evaluation mode, the same each time, and can be measured on what its tokenizer gives."""
        for name in self.known:
            model, again = self.plugin.model(name), self.plugin.model(name)
            assert isinstance(model, nn.Module)
            assert not model.training
            assert all(map(torch.equal, model.parameters(), again.parameters()))
            tokenizer = self.plugin.tokenizer(name)
            ids = [1, 2, 3, 4] if tokenizer is None else encode(tokenizer, "a text of a few words")
            assert next(iter(capture(model, torch.tensor([ids])))).operator.length == len(ids)
            assert isinstance(self.plugin.record(name), dict)
