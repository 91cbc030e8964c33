"""The high-resolution generator: it translates a small copy, and carries the photo's own detail over.

After LPTN (Liang et al., CVPR 2021) and MCT (Song et al., ECCV 2022): the image is halved `levels` times, and
what each halving loses, a band of a Laplacian pyramid, is kept. The paper's residual generator translates the
small image; beside its colours it gives a gain for each band, in (0, 2), by which the photo's own detail is
multiplied before it is put back. So every pixel stays where it was, and a large image costs what a small one does.

A small image drawn from features of a quarter of its size has beads along roofs, and a glow around what is bright. So,
where spec.guided, its colours follow the photo's edges (`guided`), and lamps go out by day (`glare`).

Where spec.log_light, the network and the filter look at the logarithm of light, in which a roof before a black sky has
as much of an edge as one before a bright sky. As light is stored, beside its lamps a night is even, and by day a haze.

Where spec.recolours, the small image is not drawn anew, but onto the photo in the other domain's colours
(`Recolour`), of which a share is kept in each place: all of a wall, nothing of a sky. Light is drawn at full strength
and hue fainter, since day and night differ more in light: on its way to black a sky does not stay red.

What a night does not show comes out near the mean, and a day made of it as a haze; and light is spread as in no
photograph. So in use what gets darker gets steeper (`tone`); and where the colours of fakes are held (`tint.Tint`),
their contrast is counted, and brought to that of the real images.

Detail is what surfaces do to light (Retinex: Land and McCann 1971): where the small image got darker, its detail gets
fainter in the same proportion, whatever the gain. In LPTN and MCT it does not: a bright edge by day is one by night.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..device import wide
from ..threads import ordered
from .glare import put_out
from .guided import BLACK, double, guided, logarithmic
from .recolour import Recolour
from .tone import tone, toned

FAINT, KEPT = 0.1, 1.0
"""Where a photo is recoloured, at the beginning: the last layer's weights, as a part of the paper's, and the number of
which (1 + tanh) / 2, seven eighths, is the share of the recoloured photo that is kept."""
HUE_DRAWN = 0.3
"""As a part of light, how strongly hue is drawn onto a recoloured photo."""
STRIP, WIDE = 32, 256
"""Rows of a large image that a core puts together at once, few enough to stay in its cache; and of others, together."""
LARGE = 1 << 22
"""Pixels from which on an image is large."""


class PyramidGenerator(nn.Module):
    """(B, C_in, H, W) in [-1, 1] -> (B, C_out, H, W) in [-1, 1]; H and W divisible by 4 * 2 ** levels.

    `spec`: the `networks.Generator` that says what this is. `small`: the residual generator of the small image,
    whose output, unbounded, has C_out * (1 + levels) channels, and one more where it recolours. `seen`:
    (B, SEEN, h, w), what a frozen network sees in the whole picture (`Frozen.see`), where spec.sees.
    """

    contrast: Tensor
    """In use, how many times as far from the mean of its picture all gets (`Tint.contrast`)."""

    def __init__(self, spec: Any, small: Any):
        super().__init__()
        self.spec, self.small = spec, small
        self.recolour = Recolour(spec.channels_in, spec.channels_out) if spec.recolours else None
        self.register_buffer("contrast", torch.ones(()))

    @torch.no_grad()
    def begin(self, source: Tensor, target: Tensor) -> None:
        """At the mean of the colours of `target`, (C_out, M); or, where it recolours, with what turns the colours of
        `source`, (C_in, N), into those, and next to nothing drawn on that.
        """
        last, colours = self.small.model[-1], [*range(len(target))]
        if self.recolour is None:
            last.bias[colours] = target.mean(1).clamp(-0.9, 0.9).atanh()
        else:
            self.recolour.begin(source, target)
            last.weight[[*colours, -1]] *= FAINT
            last.bias[-1] = KEPT

    @property
    def parts(self) -> Iterator[nn.Module]:
        return self.small.parts  # type: ignore[no-any-return]

    def forward(self, x: Tensor, seen: Tensor | None = None) -> Tensor:
        x = wide(x)
        copies = halvings(x, self.spec.levels)
        small, gains = self.translated(copies[-1], seen)
        colours = small
        for level in reversed(range(self.spec.levels)):
            colours = raised(colours, gains[level], copies[level], copies[level + 1], self.spec.recolours)
        if self.training:
            return colours
        if self.spec.levels == 1:
            return colours.clamp_(-1, 1)
        return retoned(colours, *tone(small, copies[-1]), self.contrast)

    def translated(self, image: Tensor, seen: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The small image -> its colours, in [-1, 1], and the gain of each band, finest first, in (0, 2)."""
        light = logarithmic(image, BLACK) if self.spec.log_light else image
        out = self.small(light.to(self.small.dtype), seen)
        first, *gains = wide(out).split(self.spec.channels_out, 1)
        if self.recolour is not None:
            *gains, kept = gains
            drawn = torch.lerp(first.mean(1, keepdim=True), first, HUE_DRAWN)
            first = drawn + (1 + kept.tanh()) / 2 * self.recolour(image)
        colours = first.tanh()
        if self.spec.guided:
            colours = guided(colours, image, self.spec.levels, self.spec.log_light)
            # One gain for all colours: of three, fine branches and window bars get fringes.
            gains = [gain.mean(1, keepdim=True) for gain in gains]
        gains = [1 + gain.tanh() for gain in gains]
        if self.spec.guided and self.spec.levels > 1 and not self.training:
            colours, lamp = put_out(colours, image)
            gains = [(1 - lamp) * gain for gain in gains]
        return colours, gains

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Files from before 2026-12 have no contrast."""
        state_dict.setdefault(f"{prefix}contrast", torch.ones(()))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def halvings(x: Tensor, levels: int) -> list[Tensor]:
    """The image, and its halves, each the mean over 2x2 pixels of the one before: levels + 1 images."""
    copies = [x]
    for _ in range(levels):
        copies.append(F.avg_pool2d(copies[-1], 2))
    return copies


def raised(small: Tensor, gain: Tensor | None, image: Tensor, half: Tensor, hue: bool = False) -> Tensor:
    """One level up: `small` doubled, and what `image` has beyond its `half`, times the gain (or 1), added: fainter
    where it got darker, not stronger where it got lighter (that would be the noise of dark places; a gain may), which
    goes for each colour by itself, or, with `hue`, for all together: then detail has the hue of the new light.

    Without gradients in strips, so that of a large image nothing but the result is held beside itself.
    """
    if at_once(image):
        return strip(small, gain, image, half, hue)
    out = image.new_empty((image.shape[0], small.shape[1], *image.shape[2:]))
    height, scale = image.shape[2], 1 if gain is None else half.shape[2] // gain.shape[2]

    def put(top: int, bottom: int) -> None:
        # Rows of the halves that these come from, and some around for the interpolation.
        first, last = max(0, top // 2 - 2 * scale), min(height // 2, bottom // 2 + 2 * scale)
        first, last = first // scale * scale, min(height // 2, -(-last // scale) * scale)
        part = strip(
            small[:, :, first:last], None if gain is None else gain[:, :, first // scale : last // scale],
            image[:, :, 2 * first : 2 * last], half[:, :, first:last], hue,
        )  # fmt: skip
        out[:, :, top:bottom] = part[:, :, top - 2 * first : bottom - 2 * first]

    by_strips(put, height, image.shape[3], image.device)
    return out


def retoned(x: Tensor, negative: Tensor, power: Tensor, factor: Tensor, level: Tensor, contrast: Tensor) -> Tensor:
    """`toned`; without gradients in strips, each in the place of what it was."""
    how = negative, power, factor, level, contrast
    if at_once(x):
        return toned(x, *how)

    def put(top: int, bottom: int) -> None:
        x[:, :, top:bottom] = toned(x[:, :, top:bottom], *how)

    by_strips(put, x.shape[2], x.shape[3], x.device)
    return x


def at_once(x: Tensor) -> bool:
    """Whether a picture is not put together by strips."""
    return torch.is_grad_enabled() or torch.compiler.is_exporting() or x.shape[2] <= 2 * WIDE


def by_strips(task: Callable[[int, int], None], height: int, width: int, device: torch.device) -> None:
    """`task(top, bottom)` for each strip, without gradients. Of a large image on a CPU each core takes its own: where
    cores share each operation, they wait for each other at each, which on a busy machine takes most of the time."""
    mode = torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad  # a thread has its own
    cores, large = torch.get_num_threads(), height * width >= LARGE
    rows = STRIP if large else WIDE
    strips = [(top, min(top + rows, height)) for top in range(0, height, rows)]
    task = mode()(task)
    if device.type != "cpu" or cores == 1 or not large:
        for top, bottom in strips:
            task(top, bottom)
        return
    try:
        for _ in ordered(
            lambda ends: task(*ends), strips, workers=cores, initializer=partial(torch.set_num_threads, 1)
        ):
            torch.set_num_threads(cores)  # threads to come, other people's, take what was set last in whatever thread
    finally:
        torch.set_num_threads(cores)


def strip(small: Tensor, gain: Tensor | None, image: Tensor, half: Tensor, hue: bool) -> Tensor:
    colours, before = double(small), double(half)
    band = image - before
    if band.shape[1] != colours.shape[1]:  # between colour and gray
        band, before = band.mean(1, keepdim=True), before.mean(1, keepdim=True)
    times = (colours + (1 + BLACK)) / (before.clamp(min=-1) + (1 + BLACK))  # while training, fakes may be below -1
    if hue:
        times = times.clamp(min=0)
        times = times / times.mean(1, keepdim=True).clamp(min=1)
    else:
        times = times.clamp(0, 1)
    if gain is not None:
        times = times * F.interpolate(gain, image.shape[2:], mode="bilinear")
    return torch.addcmul(colours, band, times)
