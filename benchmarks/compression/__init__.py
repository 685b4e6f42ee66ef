"""What half the state costs: small text models over several seeds, cut by `statesize.compress` and by older ways."""
