"""A grid of eight runs that take a moment, and a mixer of one's own for it."""

GRID = """
[model]
mixer = ["la", "gla"]
key_size = 2
width = 8
heads = 2
layers = 1
mlp_factor = 1
convolution_size = 2
decay_bias = 0.0
[training]
steps = 6
batch_size = 4
rate = [6e-3, 1.2e-2]
weight_decay = 0.0
[measuring]
every = 4
sequences = 2
[execution]
workers = 1
[[task]]
name = "mqar"
pairs = [2, 3]
length = 12
vocabulary_size = 12
held_out_sequences = 8
"""

RUNNING_AVERAGE = """
import torch
from torch import nn
import statesize as ss
from statesize.lab.mixers import register_mixer


class RunningAverage(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.decay = nn.Parameter(torch.linspace(0.5, 0.9, config.width))
        self.output = nn.Linear(config.width, config.width)
        self.register_buffer("scale", torch.tensor(0.5), persistent=False)
        self.dropout = nn.Dropout(0.1)

    def forward(self, hidden):
        mixed = self.operator(hidden).apply(hidden.mT.unsqueeze(-1)).squeeze(-1).mT
        return self.dropout(self.output(self.scale * mixed))

    def operator(self, hidden):
        sequences, length, width = hidden.shape
        decay = self.decay[:, None, None].expand(sequences, width, length, 1)
        return ss.Recurrence(A=decay, B=1 - decay, C=torch.ones_like(decay))


register_mixer("average", RunningAverage)
"""
