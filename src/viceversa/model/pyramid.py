"""The high-resolution generator: it translates a small copy, and carries the photo's own detail over.

After LPTN (Liang et al., CVPR 2021) and MCT (Song et al., ECCV 2022): the image is halved `levels` times, and
what each halving loses, a band of a Laplacian pyramid, is kept. The paper's residual generator translates the
small image; beside its colours it gives a gain for each band, in (0, 2), by which the photo's own detail is
multiplied before it is put back. So every pixel stays where it was, and a large image costs what a small one does.

A small image drawn from features of a quarter of its size has beads along roofs, and a glow around what is bright. So,
where spec.guided, its colours follow the photo's edges: where a neighbourhood varies, they become the affine function
of the small photo's colours that comes nearest to them (the guided filter, guided in colour: He et al., ECCV 2010).
What was drawn right beside an edge, where beads and glows are, counts for little (`trusted`): a sky behind a tower gets
as dark as it is farther off.
Light changes over whole walls and skies, and an edge lies where the photo has one, light to dark or dark to light.
Where nothing is, in a clear sky or a black night, they change only gradually: no hill is invented there. In a picture
that gets darker, where much is on every side, in the middle of a facade or a street, they get as light as was drawn:
there windows and lamps may come on (`lit`). By day none has to, and nothing is drawn beside what is there. (Where the
photo was halved but once, the small copy has more to say: what was drawn where the photo is dark and even stays, a sea
that was black, and light comes on in a picture that gets lighter, too, as snow does.)

Where spec.log_light, the network and the filter look at the logarithm of light, in which a roof before a black sky has
as much of an edge as one before a bright sky. As light is stored, beside its lamps a night is even, and by day a haze.

Where spec.recolours, the small image is not drawn anew, but onto the photo in the other domain's colours
(`Recolour`), of which a share is kept in each place: all of a wall, nothing of a sky. Light is drawn at full strength
and hue fainter, since day and night differ more in light: on its way to black a sky does not stay red.

What a night does not show comes out near the mean, and a day made of it as a haze. So where the colours of fakes are
held (`tint.Tint`), their contrast is counted, and in use brought to that of the real images: colours get farther from
the mean of their picture by one factor, the same for all pictures, and detail stronger by the same.

Detail is what surfaces do to light (Retinex: Land and McCann 1971): where the small image got darker, its detail gets
fainter in the same proportion, whatever the gain. In LPTN and MCT it does not: a bright edge by day is one by night.
"""

import math
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..threads import ordered
from .recolour import Recolour

REACH, EVEN = 3, 0.01
"""Of the guided filter: a neighbourhood's pixels to each side, of half the small image, for the photo itself and for
each time it is halved (the more often that is, the larger is what is seen at a time); and the variance, in a range of
2, below which a neighbourhood counts as even, and has no slope."""
EDGE, BESIDE, SIDES, LEAST = 0.003, 3, 0.1, 0.01
"""The variance of 3x3 pixels of half the small image from which on they count as an edge; how far beside it colours are
trusted less; the variance of a neighbourhood from which on it shows both sides; and how much each counts at least."""
NEAR = 2
"""How many pixels of the small image to each side light that comes on follows the photo's edges."""
BUSY, MIDST, DARKER = 0.005, 2, 0.2
"""The variance of 3x3 pixels of half the small image, over the square of their light, from which on they count as busy;
how far around, in such pixels, all have to be so; and by how much, of a range of 2, a picture has to get darker for all
its lamps to come on."""
DARK, LIGHT = -0.6, -0.2
"""How light a place of the photo is, in a range from -1 to 1, up to which it may be anything when it is even, and from
which on it is one thing: a sky, a lake, a wall."""
HUE = 3.0
"""How many times lighter a colour gets before it gets whiter."""
FAINT, KEPT = 0.1, 1.0
"""Where a photo is recoloured, at the beginning: the last layer's weights, as a part of the paper's, and the number of
which (1 + tanh) / 2, seven eighths, is the share of the recoloured photo that is kept."""
HUE_DRAWN = 0.3
"""As a part of light, how strongly hue is drawn onto a recoloured photo."""
STRIP = 32
"""Rows of a large image that are put together at once: few enough to stay in a core's cache."""
BLACK, DIM = 0.1, 0.3
"""Of a range of 2: what is added to both sides of a proportion of light, since near black there is noise alone; and how
light it has to be that colours follow its logarithm: in what is darker lie the blocks of compression."""


class PyramidGenerator(nn.Module):
    """(B, C_in, H, W) in [-1, 1] -> (B, C_out, H, W) in [-1, 1]; H and W divisible by 4 * 2 ** levels.

    `spec`: the `networks.Generator` that says what this is. `small`: the residual generator of the small image,
    whose output, unbounded, has C_out * (1 + levels) channels, and one more where it recolours. `seen`:
    (B, SEEN, h, w), what a frozen network sees in the whole picture (`Frozen.see`), where spec.sees.
    """

    contrast: Tensor
    """In use, how many times as far from the mean of their picture all gets as it was drawn (`Tint.contrast`)."""

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
        x = x.to(torch.promote_types(x.dtype, torch.float32))
        copies = halvings(x, self.spec.levels)
        colours, gains = self.translated(copies[-1], seen)
        for level in reversed(range(self.spec.levels)):
            colours = raised(colours, gains[level], copies[level], copies[level + 1], self.spec.recolours)
        return colours if self.training else colours.clamp_(-1, 1)

    def translated(self, image: Tensor, seen: Tensor | None) -> tuple[Tensor, list[Tensor]]:
        """The small image -> its colours, in [-1, 1], and the gain of each band, finest first, in (0, 2)."""
        light = logarithmic(image, BLACK) if self.spec.log_light else image
        out = self.small(light.to(self.small.dtype), seen)
        first, *gains = out.to(torch.promote_types(out.dtype, torch.float32)).split(self.spec.channels_out, 1)
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
        if self.training:
            return colours, gains
        far = colours - colours.mean((1, 2, 3), keepdim=True)
        return colours + (self.contrast - 1) * far, [self.contrast * gain for gain in gains]

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *rest: Any) -> None:
        """Files from before 2026-12 have no contrast."""
        state_dict.setdefault(f"{prefix}contrast", torch.ones(()))
        super()._load_from_state_dict(state_dict, prefix, *rest)


def logarithmic(x: Tensor, black: float) -> Tensor:
    """[-1, 1] -> [-1, 1], by the logarithm of light; where that is less than `black`, of a range of 2, by light itself
    (the inverse hyperbolic sine, as in Lupton, Gunn and Szalay 1999)."""
    return ((x + 1) / black).asinh() * (2 / math.asinh(2 / black)) - 1


def guided(colours: Tensor, image: Tensor, levels: int, log_light: bool = False) -> Tensor:
    """`colours` (B, n, h, w), made to follow the edges of `image` (B, 1 or 3, h, w; of others, their mean is taken), or
    of the logarithm of its light, where that is a photo that was halved `levels` times.

    An affine function of those replaces them, another in each neighbourhood; where that is even, their mean around it
    replaces them, or, where a photo that was halved but once is dark, they stay. The coefficients are found at half the
    size (He and Sun 2015, "Fast guided filter").
    """
    by = logarithmic(image, DIM) if log_light else image
    if by.shape[1] not in (1, 3):
        by = by.mean(1, keepdim=True)
    few, guide, light = F.avg_pool2d(colours, 2), F.avg_pool2d(by, 2), F.avg_pool2d(image, 2)
    around, trust = partial(neighbourhood, reach=REACH * (1 + levels)), trusted(guide)
    total = around(trust)

    def mean(x: Tensor) -> Tensor:
        return around(trust * x) / total

    slopes, rest, covariance = fitted(guide, few, mean)
    # A neighbourhood up to an edge knows nothing of what lies behind: those that show both sides have the say.
    spread = covariance.diagonal(dim1=1, dim2=2).mean(-1)[:, None]
    say = spread / (SIDES + spread) + LEAST
    slopes, rest = (double(around(say * x) / around(say)) for x in (slopes.flatten(1, 2), rest))
    led = (slopes.unflatten(1, (by.shape[1], -1)) * by[:, :, None]).sum(1) + rest
    midst = double(busy(light))
    if levels > 1:
        darker = (light.mean((1, 2, 3), keepdim=True) - few.mean((1, 2, 3), keepdim=True)) / DARKER
        return lit(led, lamps(colours.mean(1, keepdim=True), by), midst * darker.clamp(0, 1))
    variance = double(around((around(guide * guide) - around(guide).square()).mean(1, keepdim=True)))
    dark = ((LIGHT - image.mean(1, keepdim=True)) / (LIGHT - DARK)).clamp(0, 1)
    return torch.lerp(lit(led, colours, midst), colours, dark * EVEN / (EVEN + variance))


def lamps(drawn: Tensor, guide: Tensor) -> Tensor:
    """The light (B, 1, h, w) that was drawn, made to follow the edges of how light `guide` (B, 1 or 3, h, w) is that
    lie within a few pixels: it fills a window's panes, and hangs in no tree."""
    around, light = partial(neighbourhood, reach=NEAR), guide.mean(1, keepdim=True)
    slopes, rest, _ = fitted(light, drawn, around)
    return around(slopes.squeeze(2)) * light + around(rest)


def fitted(guide: Tensor, drawn: Tensor, mean: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """The affine function of `guide` (B, k, h, w) that comes nearest to `drawn` (B, n, h, w) in each neighbourhood, by
    the least squares: its slopes (B, k, n, h, w), what is added to them (B, n, h, w), and the covariance of the guide.
    """
    of_guide, of_drawn = mean(guide), mean(drawn)
    covariance = products(guide, guide, mean) - of_guide[:, :, None] * of_guide[:, None]
    slopes = solved(covariance, products(guide, drawn, mean) - of_guide[:, :, None] * of_drawn[:, None])
    return slopes, of_drawn - (slopes * of_guide[:, :, None]).sum(1), covariance


def trusted(guide: Tensor) -> Tensor:
    """(B, n, h, w) -> (B, 1, h, w), at most 1 + LEAST: how much what was drawn in a place counts around it."""
    mean = F.avg_pool2d(guide, 3, 1, 1, count_include_pad=False)
    variance = F.avg_pool2d(guide * guide, 3, 1, 1, count_include_pad=False) - mean * mean
    edge = F.max_pool2d(variance.mean(1, keepdim=True).clamp(min=0), 2 * BESIDE + 1, 1, BESIDE)
    return EDGE / (EDGE + edge) + LEAST


def busy(guide: Tensor) -> Tensor:
    """(B, n, h, w) -> (B, 1, h, w) in [0, 1): how much is to be seen on every side. It is next to nothing along an edge
    between two even places, such as a roof and the sky, however strong that edge is."""
    light = guide.mean(1, keepdim=True) + 1 + BLACK
    mean = F.avg_pool2d(light, 3, 1, 1, count_include_pad=False)
    variance = (F.avg_pool2d(light * light, 3, 1, 1, count_include_pad=False) / (mean * mean) - 1).clamp(min=0)
    least = -F.max_pool2d(-variance, 2 * MIDST + 1, 1, MIDST)
    return F.avg_pool2d(least / (least + BUSY), 2 * MIDST + 1, 1, MIDST, count_include_pad=False)


def lit(colours: Tensor, drawn: Tensor, share: Tensor) -> Tensor:
    """`colours` (B, n, h, w), made as light as `drawn` by a share (B, 1, h, w): in their own hue, and where that does
    not suffice by white, as lamps are in photographs."""
    own = (colours.mean(1, keepdim=True) + 1 + BLACK).clamp(min=BLACK)
    wanted = torch.lerp(own, drawn.mean(1, keepdim=True) + 1 + BLACK, share)
    times = (wanted / own).clamp(max=HUE)
    return (colours + 1 + BLACK) * times + (wanted - own * times) - 1 - BLACK


def products(x: Tensor, y: Tensor, mean: Callable[[Tensor], Tensor]) -> Tensor:
    """(B, k, h, w), (B, n, h, w) -> (B, k, n, h, w), the mean over each neighbourhood of each product."""
    means: Tensor = mean((x[:, :, None] * y[:, None]).flatten(1, 2)).unflatten(1, (x.shape[1], y.shape[1]))
    return means


def neighbourhood(x: Tensor, reach: int) -> Tensor:
    """The mean of what is around each place, so far to each side; at the border, of what there is."""
    x = F.avg_pool2d(x, (2 * reach + 1, 1), 1, (reach, 0), count_include_pad=False)
    return F.avg_pool2d(x, (1, 2 * reach + 1), 1, (0, reach), count_include_pad=False)


def solved(covariance: Tensor, right: Tensor) -> Tensor:
    """(covariance + EVEN)^-1 right, where these are (B, k, k, h, w), k 1 or 3, and (B, k, n, h, w); by the adjugate,
    which every kind of exported file can hold."""
    if covariance.shape[1] == 1:
        return right / (covariance + EVEN)
    (a, b, c), (_, d, e), (_, _, f) = (row.unbind(1) for row in covariance.unbind(1))
    a, d, f = a + EVEN, d + EVEN, f + EVEN
    adjugate = [
        [d * f - e * e, c * e - b * f, b * e - c * d],
        [c * e - b * f, a * f - c * c, b * c - a * e],
        [b * e - c * d, b * c - a * e, a * d - b * b],
    ]
    determinant = a * adjugate[0][0] + b * adjugate[0][1] + c * adjugate[0][2]
    inverse = torch.stack([torch.stack(row, 1) for row in adjugate], 1) / determinant[:, None, None]
    return (inverse[:, :, :, None] * right[:, None]).sum(2)


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
    if torch.is_grad_enabled() or torch.compiler.is_exporting() or image.shape[2] <= 2 * STRIP:
        return strip(small, gain, image, half, hue)
    out = image.new_empty((image.shape[0], small.shape[1], *image.shape[2:]))
    height, scale = image.shape[2], 1 if gain is None else half.shape[2] // gain.shape[2]

    def put(top: int) -> None:
        # Rows of the halves that these come from, and some around for the interpolation.
        first, last = max(0, top // 2 - 2 * scale), min(height // 2, (top + STRIP) // 2 + 2 * scale)
        first, last = first // scale * scale, min(height // 2, -(-last // scale) * scale)
        part = strip(
            small[:, :, first:last], None if gain is None else gain[:, :, first // scale : last // scale],
            image[:, :, 2 * first : 2 * last], half[:, :, first:last], hue,
        )  # fmt: skip
        out[:, :, top : top + STRIP] = part[:, :, top - 2 * first : min(top + STRIP, height) - 2 * first]

    by_strips(put, height, image.device)
    return out


def by_strips(task: Callable[[int], None], height: int, device: torch.device) -> None:
    """`task(top)` for each strip, without gradients. On a CPU each core takes its own: such as share each operation
    wait for each other at each."""
    alone = torch.inference_mode if torch.is_inference_mode_enabled() else torch.no_grad  # a thread has its own
    tops, task, cores = range(0, height, STRIP), alone()(task), torch.get_num_threads()
    if device.type != "cpu" or cores == 1:
        for top in tops:
            task(top)
        return
    try:
        for _ in ordered(task, tops, workers=cores, initializer=partial(torch.set_num_threads, 1)):
            pass
    finally:
        torch.set_num_threads(cores)  # threads to come take the number that was set last, in whatever thread


def strip(small: Tensor, gain: Tensor | None, image: Tensor, half: Tensor, hue: bool) -> Tensor:
    colours, before = double(small), double(half)
    band = image - before
    if band.shape[1] != colours.shape[1]:  # between colour and gray
        band, before = band.mean(1, keepdim=True), before.mean(1, keepdim=True)
    times = (colours + (1 + BLACK)) / (before + (1 + BLACK))
    if hue:
        times = times.clamp(min=0)
        times = times / times.mean(1, keepdim=True).clamp(min=1)
    else:
        times = times.clamp(0, 1)
    if gain is not None:
        times = times * F.interpolate(gain, image.shape[2:], mode="bilinear")
    return torch.addcmul(colours, band, times)


def double(x: Tensor) -> Tensor:
    return F.interpolate(x, scale_factor=2, mode="bilinear")
