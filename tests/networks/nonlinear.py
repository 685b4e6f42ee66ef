"""Recurrences that are nonlinear in their state, which have no operator T."""

import torch
from torch import Tensor, nn


class SLSTM(nn.Module):
    """The sLSTM of xLSTM (Beck et al. 2024) with one head: exponential gates, a normaliser and a stabiliser."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.input, self.recurrent = nn.Linear(width, 4 * width), nn.Linear(width, 4 * width, bias=False)

    def forward(self, inputs: Tensor) -> Tensor:
        hidden = cell = normaliser = inputs.new_zeros(inputs.shape[0], inputs.shape[2])
        stabiliser = inputs.new_zeros(inputs.shape[0], inputs.shape[2])
        outputs = []
        for step in self.input(inputs).unbind(1):
            candidate, enter, forget, leave = (step + self.recurrent(hidden)).chunk(4, -1)
            forget = nn.functional.logsigmoid(forget)
            following = torch.maximum(forget + stabiliser, enter)
            kept, added = (forget + stabiliser - following).exp(), (enter - following).exp()
            cell = kept * cell + added * candidate.tanh()
            normaliser = kept * normaliser + added
            stabiliser, hidden = following, leave.sigmoid() * cell / normaliser
            outputs.append(hidden)
        return torch.stack(outputs, 1)


class Language(nn.Module):
    """Embedding, a recurrence, and logits; the recurrence may return a tuple, as those of torch do."""

    def __init__(self, mixer: nn.Module, vocabulary: int, width: int) -> None:
        super().__init__()
        self.embedding, self.mixer, self.logits = nn.Embedding(vocabulary, width), mixer, nn.Linear(width, vocabulary)

    def forward(self, input_ids: Tensor) -> Tensor:
        mixed = self.mixer(self.embedding(input_ids))
        return self.logits(mixed[0] if isinstance(mixed, tuple) else mixed)


def language(kind: str, width: int = 6, vocabulary: int = 12, seed: int = 0) -> Language:
    """A small model with a GRU, an LSTM or an sLSTM and random weights."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        mixers = {
            "gru": lambda: nn.GRU(width, width, batch_first=True),
            "lstm": lambda: nn.LSTM(width, width, batch_first=True),
            "slstm": lambda: SLSTM(width),
        }
        return Language(mixers[kind](), vocabulary, width)
