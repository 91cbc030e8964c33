"""The 50 earlier fakes that a discriminator is shown (section 4, after Shrivastava et al. 2017)."""

import torch
from torch import Tensor, nn


class History(nn.Module):
    """Earlier fakes for the discriminator. (B, C, H, W) -> (B, C, H, W), image by image.

    Until `size` images are kept, the new one is kept and returned. Then, with probability 0.5, a random
    kept one is returned and the new one takes its place; else the new one is returned. Size 0 returns the
    new ones. State is in buffers and nothing waits for the host, so it is saved and captured like weights.
    """

    images: Tensor
    seen: Tensor

    def __init__(self, size: int, channels: int, height: int, width: int):
        super().__init__()
        self.size = size
        self.register_buffer("images", torch.zeros(size, channels, height, width))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))

    def forward(self, fake: Tensor, draws: Tensor) -> Tensor:
        """`draws`: (B, 2), uniform in [0, 1): the coin, and which kept image it is about."""
        fake = fake.detach()
        if self.size == 0:
            return fake
        new, coins = fake.to(self.images.dtype).split(1), draws.split(1)
        shown = [self.exchange(image, coin) for image, coin in zip(new, coins, strict=True)]
        return torch.cat(shown).to(fake.dtype)

    def exchange(self, new: Tensor, draw: Tensor) -> Tensor:
        filling = self.seen < self.size
        swap = ~filling & (draw[:, 0] > 0.5)
        slot = (draw[:, 1] * self.size).long().clamp(max=self.size - 1)
        slot = torch.where(filling, self.seen, slot)
        old = self.images.index_select(0, slot)
        self.images.index_copy_(0, slot, torch.where(filling | swap, new, old))
        self.seen += filling
        return torch.where(swap, old, new)
