"""Where attention layers are placed among gated ones."""
