"""What is searched for by heuristics, and confirmed by `check.check_operator` before it is measured.

No file outside of this room guesses. Attention is found by `plain_attention` (by queries and keys alone, whose scale
and bias may be guesses), `probabilities` (else which of several ways gives its map) and `softmax_tap` (any softmax that
is multiplied with values). Any other layer is run alone with other numbers (`lone`): `modules` says which of them mix
positions, and notes them in `own_mixing`; T is found in them by impulses (`linear`), or else is a `derivative`.
`other_mixing` finds what mixes beside a kernel.
"""
