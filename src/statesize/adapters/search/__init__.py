"""What is searched for by heuristics, and confirmed by `faithfulness.check_operator` before it is measured.

No file outside of this room guesses. Here stand T of any layer by impulses: `modules` (which modules mix positions,
noted in `own_mixing`), `lone_run` (one of them run alone, its tensors kept or replaced), `mixing`, `linear_parts`
(between which two tensors it is linear), `channels` (heads and channels) and `layer` (T); `declared` (which tensors a
declared T maps to each other); `derivative` (layers without a T); `other_mixing` (what mixes beside a kernel);
`softmax_tap` (attention by any softmax, its scale a guess); `fla_impulses` and `triton_interpreter` (kernels of fla
without a formula, and without a GPU).
"""
