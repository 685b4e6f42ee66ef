"""What the spellings share: widths and projections."""

from torch import nn

WIDTH, HEADS = 24, 3


class Projected(nn.Module):
    """A layer with queries, keys and values of several heads."""

    def __init__(self, key_heads=HEADS):
        super().__init__()
        size = WIDTH // HEADS * key_heads
        self.query, self.key, self.value = nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, size), nn.Linear(WIDTH, size)
        self.output = nn.Linear(WIDTH, WIDTH)

    def heads(self, hidden):
        """q, k and v, (S, head, L, channel)."""
        projected = self.query(hidden), self.key(hidden), self.value(hidden)
        return tuple(part.unflatten(-1, (-1, WIDTH // HEADS)).transpose(1, 2) for part in projected)

    def joined(self, mixed):
        """The output of (S, head, L, channel)."""
        return self.output(mixed.transpose(1, 2).flatten(2))
