import dataclasses

import torch

from speechattn.model.config import EncoderConfig
from speechattn.model.encoder import Encoder

SMALL = EncoderConfig(dim=12, layers=2, heads=3, left=3, right=1, feed_forward=16, conv_kernel=5)


INPUT_DIM = 7


def encoder(**changes: object) -> Encoder:
    return Encoder(INPUT_DIM, dataclasses.replace(SMALL, **changes)).eval()


def reach(body: Encoder, num_frames: int) -> list[list[int]]:
    """For every output frame, the input frames that its gradient touches."""
    body = body.double()
    features = torch.randn(1, num_frames, INPUT_DIM, dtype=torch.float64, requires_grad=True)
    output = body(features, torch.tensor([num_frames]))
    reached = []
    for t in range(num_frames):
        (gradient,) = torch.autograd.grad(output[0, t].square().sin().sum(), features, retain_graph=True)
        reached.append(gradient[0].any(dim=1).nonzero().flatten().tolist())
    return reached
