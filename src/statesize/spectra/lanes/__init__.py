"""Many small recurrences side by side in registers: vectors, eigenvalues, factors, spectra and small_state.

Read them in this order.
"""
