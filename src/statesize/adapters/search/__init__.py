"""What is searched for by heuristics, and confirmed by `check.check_operator` before it is measured.

No file outside of this room guesses. Attention is found by `plain_attention` (by queries and keys alone, whose scale
and bias may be guesses), `probabilities` (else which of several ways gives its map) and `softmax_tap` (any softmax that
is multiplied with values). Any other layer is found by impulses: `modules` (which modules mix positions, noted in
`own_mixing`), `lone_run` (one of them run alone, its tensors kept or replaced), `other_inputs` (what it is asked with),
`transposed` (where positions lie if shapes do not tell), `mixing`, `linear_parts` (between which two tensors it is
linear, which `linear_search` tells and `preferred` chooses), `channels` (heads and channels), `layer` (T) and `kept`
(where T keeps more than is said of it); `declared` (which tensors a declared T maps to each other); `derivative`
(layers without a T); `other_mixing` (what mixes beside a kernel). What runs a model, reads what it keeps and knows its
kernels lies below or beside: nothing there imports from here but the adapters of attention.
"""
