"""Entropy-ESS with gradients: spectra at the borders of chunks, and maps to their inputs."""
