"""Mixers with heads: softmax attention, linear attention, delta rule. Read `softmax`, `linear`, then the others."""
