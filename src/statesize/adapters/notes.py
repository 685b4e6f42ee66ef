"""What has to be said of some mixers of transformers beside their T, by the name of their class or family."""

from __future__ import annotations

_CONVOLVED = "Its values are convolved over a few tokens before they are mixed; T is without that convolution."
# What a mixer does to its values, or to other streams, beside mixing its values by T.
NOTES = {
    "InklingAttention": _CONVOLVED,
    "Inkling2SlidingAttention": _CONVOLVED,
    "Inkling2FullAttention": _CONVOLVED,
    "ZayaAttention": "Half of each value is that of the token before; T is without that delay.",
    "DeepseekV4Attention": "Its values are rotated by position before they are mixed, and back after; T is between.",
    "ProphetNetNgramSelfAttention": "T is that of its main stream; its n-gram streams attend to more than the text.",
}
# Why nothing is seen in a family.
UNSEEN = {
    "reformer": "sorts positions into buckets by hashes, and the bucket of a position depends on later ones, so it is "
    "not causal",
}
