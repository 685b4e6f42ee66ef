"""How a model is held, run and put back: wrappers, weights, masks, precision and its lists of layers."""
