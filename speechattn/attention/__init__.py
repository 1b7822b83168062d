"""Truncated self-attention: frame t attends to frames t - L ... t + R and to nothing else.

Multi-head attention (Vaswani et al. 2017, eq. 1) restricted to a band, as in time-restricted self-attention
(Povey et al. 2018, sec. 2). All paths have the same parameters and results: `dense` masks the full score matrix and
is the reference; `blocked` touches only the band, in time and memory linear in the number of frames.

Letters, in all modules: B batch, T frames, D features, H heads, E features of a head, L frames of left context,
R frames of right context, K frames of a block. Masks: True = may attend / real frame.
"""

from speechattn.attention.dense import attend, band_mask
from speechattn.attention.layer import PATHS, TruncatedSelfAttention, truncated_attention
from speechattn.attention.positions import POSITIONS, Position, RelativeBias, Rotary
from speechattn.attention.weighting import NORMALISERS, SCORES, Weighting

__all__ = [
    "NORMALISERS",
    "PATHS",
    "POSITIONS",
    "SCORES",
    "Position",
    "RelativeBias",
    "Rotary",
    "TruncatedSelfAttention",
    "Weighting",
    "attend",
    "band_mask",
    "truncated_attention",
]
