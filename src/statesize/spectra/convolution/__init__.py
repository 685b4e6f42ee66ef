"""The engine of convolutions. Read blocks (decomposed and bounded), realisation (few states), then convolution."""
