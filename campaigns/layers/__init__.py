"""Random small layers: T equals a definition written beside each, or the layer is refused."""
