"""Mixers with heads: softmax attention, linear attention and its decays. Read `softmax`, `linear`, then the others."""
