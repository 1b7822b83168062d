"""Large pieces go through blocks, small ones through all scores; both give what the whole gives."""

import pytest
import torch

from speechattn.attention import TruncatedSelfAttention
from speechattn.model.step import MANY_ROWS
from speechattn.model.stream import AttentionStream


@pytest.mark.parametrize("position", ["none", "relative", "rotary"])
@pytest.mark.parametrize("normaliser", ["softmax", "relu", "sigmoid"])
@pytest.mark.parametrize(("left", "right"), [(0, 0), (5, 0), (3, 9), (40, 2)])
def test_pieces_of_any_size_equal_the_whole(left, right, normaliser, position):
    torch.manual_seed(0)
    options = {"left": left, "right": right, "normaliser": normaliser, "position": position}
    attention = TruncatedSelfAttention(16, 2, **options).double().eval()
    if position == "relative":
        torch.nn.init.normal_(attention.position.offset_bias)
    sizes = [1, MANY_ROWS, 3, 2 * MANY_ROWS + 7, MANY_ROWS - 1]
    x = torch.randn(sum(sizes), 16, dtype=torch.float64)
    stream = AttentionStream(attention)
    with torch.no_grad():
        expected = attention(x[None])[0]
        pieces = [stream.push(piece) for piece in x.split(sizes)]
        found = torch.cat([*pieces, stream.push(x[:0], last=True)])
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert not torch.allclose(found[1:], expected[:-1], atol=1e-3)  # a shift by one row would be seen
