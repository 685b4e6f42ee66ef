"""Architectures of one size, trained here on the same text, and their ESS."""
