"""The engine of convolutions: the kernel's rows as circulants, as a realisation, and a second opinion of counts."""
