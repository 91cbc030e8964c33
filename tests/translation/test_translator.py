"""`load` and `Translator`: every kind of input gives the same kind back, at its own size."""

import copy
import os
import pickle
import threading
import unicodedata
import warnings
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image
from torch.nn import functional as F

import viceversa
from viceversa.data import pictures
from viceversa.errors import BadInput, Failed
from viceversa.model.file import Model, load_model, save_model
from viceversa.model.frozen import shared
from viceversa.model.networks import Generator, ResnetGenerator, initialise
from viceversa.model.pyramid import halvings, raised
from viceversa.translation import detail, tiles
from viceversa.translation.detail import resize, with_detail
from viceversa.translation.translator import Translator, bytes_of, load

SIZES = [
    (1, 1), (1, 700), (700, 1), (2, 3), (3, 2), (4, 4), (5, 7), (7, 5), (8, 8), (9, 9), (10, 3), (11, 13), (13, 17),
    (15, 16), (16, 15), (17, 17), (19, 23), (29, 31), (31, 29), (37, 41), (43, 47), (53, 59), (61, 67), (64, 64),
    (71, 73), (79, 83), (89, 97), (97, 89), (100, 1), (101, 103), (107, 109), (113, 127), (127, 128), (131, 137),
    (139, 149), (151, 157), (200, 163), (256, 256), (255, 257), (517, 389),
]  # fmt: skip


def model(seed=0, directions=("ab", "ba"), image=None, **spec):
    random = torch.Generator().manual_seed(seed)
    generators = {}
    for direction in directions:
        generators[direction] = Generator(**{"width": 4, "blocks": 1, **spec}).build().eval()
        initialise(generators[direction], random)
        for weight in generators[direction].parameters():
            weight.data *= 5  # else all outputs are a gray as good as another
    return Model(generators, ("day", "night"), {"image": image} if image else {})


def noise(*shape, dtype=np.uint8, seed=0):
    return np.random.default_rng(seed).integers(0, np.iinfo(dtype).max, shape, dtype=dtype, endpoint=True)


@pytest.fixture(scope="module")
def translator():
    return load(model(), device="cpu", precision="fp32")


@pytest.mark.parametrize("size", SIZES, ids=lambda size: "{}x{}".format(*size))
def test_every_size_returns_at_its_own(translator, size):
    assert len(SIZES) == 40
    translated = translator(noise(*size, 3), "night")
    assert translated.shape == (*size, 3) and translated.dtype == np.uint8


@pytest.mark.parametrize("size", [(1, 1), (1, 700), (37, 41)], ids=str)
@pytest.mark.parametrize(
    "spec", [{"kind": "unet", "halvings": 5}, {"antialias": True}, {"upsample": "nearest"}], ids=str
)
def test_other_generators_take_every_size_too(spec, size):
    assert load(model(**spec), precision="fp32")(noise(*size, 3), "day").shape == (*size, 3)


def test_a_size_that_fits_is_what_the_network_gives(translator):
    batch = torch.rand(2, 3, 32, 40) * 2 - 1
    with torch.no_grad():
        expected = translator.model.generators["ab"](batch)
    translated = translator(batch, "night")
    torch.testing.assert_close(translated, expected, rtol=0, atol=1e-5)
    assert not translated.is_inference()  # it may be trained on


def test_padding_changes_nothing_far_from_the_border(translator):
    """Instance norm sees a few reflected rows: a faint change everywhere, and none of the content moved."""
    batch = resize(torch.rand(1, 3, 20, 20), (128, 128)) * 2 - 1
    whole, cut = translator(batch, "night"), translator(batch[:, :, :126, :127], "night")
    assert (whole[:, :, :120, :120] - cut[:, :, :120, :120]).abs().mean() < 0.02
    assert (whole[:, :, :120, :120] - cut[:, :, 1:121, :120]).abs().mean() > 0.1


def test_every_kind_gives_the_same_kind(translator, tmp_path):
    pixels = noise(21, 30, 3)
    expected = translator(pixels, "night")
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    for given in (tmp_path / "photo.png", str(tmp_path / "photo.png"), Image.fromarray(pixels)):
        translated = translator(given, to="night")
        assert isinstance(translated, Image.Image) and translated.mode == "RGB"
        assert np.array_equal(np.asarray(translated), expected)
    assert np.array_equal(translator(np.stack([pixels, pixels]), "night"), np.stack([expected, expected]))
    floats = translator(pictures.to_tensor(pixels).double(), "night")
    assert floats.dtype == torch.float64
    assert np.array_equal(pictures.to_pixels(floats)[0], expected)


def test_values_are_rounded(translator):
    floats = translator(pictures.to_tensor(noise(16, 16, 3)), "night")
    levels = (floats[0].permute(1, 2, 0).numpy() + 1) * 127.5
    assert np.abs(translator(noise(16, 16, 3), "night") - levels).max() <= 0.5001


def test_sixteen_bits_are_translated_in_sixteen(translator):
    deep = noise(16, 16, 3, dtype=np.uint16)
    translated = load(model())(deep, "night")  # bf16 where the chip has it, which must not show here
    assert translated.dtype == np.uint16
    floats = translator(pictures.to_tensor(deep), "night")
    assert np.abs(pictures.to_pixels(floats, np.uint16)[0].astype(int) - translated.astype(int)).max() <= 4
    assert len(np.unique(translated % 257)) > 100  # not 8 bits made longer


def test_arrays_of_gray_may_have_two_dimensions_and_16_bits_either_order():
    both = load(model(channels_in=1, channels_out=1, directions=("ab",)), precision="fp32")
    for gray in (noise(12, 18), noise(12, 18, dtype=np.uint16)):
        assert np.array_equal(both(gray), both(gray[..., None])[..., 0])
    assert np.array_equal(both(gray.astype(">u2")), both(gray)) and both(gray.astype(">u2")).dtype == np.uint16
    to_colour = load(model(channels_in=1, directions=("ab",)), precision="fp32")
    assert np.array_equal(to_colour(gray), to_colour(gray[..., None]))


def test_what_is_changed_in_reading_is_told_once_a_call(translator, tmp_path):
    deep = [pictures.Picture(noise(8, 8, 1, dtype=np.uint16, seed=n), format="TIFF", signed=True) for n in range(2)]
    pictures.write(tmp_path / "stack.tif", deep)
    Image.fromarray(noise(8, 8, 3)).save(tmp_path / "photo.png")
    for translate in (translator.to("night"), lambda path: translator(path, to="night")):
        with warnings.catch_warnings(record=True) as told:
            warnings.simplefilter("always")
            translate(tmp_path / "photo.png")
            translate(tmp_path / "stack.tif")
        (warning,) = told
        said = str(warning.message)
        assert said.startswith(f"{tmp_path}/stack.tif: ") and "\n" not in said and warning.filename == __file__
        for note in ("signed values", "several pictures in one file", "16 bits, rounded to the 8 of a PIL image"):
            assert note in said
    with pytest.warns(UserWarning, match="PIL image of mode I;16: 16 bits, rounded"):
        translator(Image.fromarray(noise(8, 8, dtype=np.uint16)), "night")


@pytest.mark.filterwarnings("ignore:PIL image of mode I;16")
@pytest.mark.parametrize("mode", ["RGBA", "LA", "L", "P", "CMYK", "1", "I;16"])
def test_pil_images_of_every_mode(translator, mode):
    pixels = noise(12, 18, 4)
    image = Image.fromarray(pixels).convert("RGB" if mode in ("P", "CMYK", "I;16") else "RGBA")
    image = Image.fromarray(noise(12, 18, dtype=np.uint16)) if mode == "I;16" else image.convert(mode)
    translated = translator(image, "night")
    assert translated.size == image.size
    assert translated.mode == ("RGBA" if mode in ("RGBA", "LA") else "RGB")
    if mode == "RGBA":
        assert np.array_equal(np.asarray(translated)[..., 3], pixels[..., 3])


def test_orientation_is_resolved(translator):
    image = Image.fromarray(noise(10, 20, 3))
    exif = image.getexif()
    exif[274] = 6
    image.info["exif"] = exif.tobytes()
    assert translator(image, "night").size == (10, 20)


def test_gray_models_give_gray():
    to_gray = load(model(channels_out=1, directions=("ab",)), precision="fp32")
    assert to_gray(noise(9, 9, 3)).shape == (9, 9, 1)
    assert to_gray(Image.fromarray(noise(9, 9, 3))).mode == "L"
    from_gray = load(model(channels_in=1, directions=("ab",)), precision="fp32")
    assert from_gray(Image.fromarray(noise(9, 9, 3))).mode == "RGB"


def lightness(pixels):
    """L of CIELAB, 0 to 100, of sRGB (..., 1 or 3), uint8 or uint16."""
    x = pixels / np.iinfo(pixels.dtype).max
    light = np.where(x <= 0.04045, x / 12.92, ((x + 0.055) / 1.055) ** 2.4)
    y = light[..., 0] if x.shape[-1] == 1 else light @ (0.2126, 0.7152, 0.0722)
    return np.where(y > (6 / 29) ** 3, 116 * np.cbrt(y) - 16, y * (29 / 3) ** 3)


@pytest.mark.parametrize("strength", [1, 0.6])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_colouring_keeps_lightness_where_the_model_says_so(dtype, strength):
    given = model(channels_in=1, directions=("ab",))
    free = load(given, precision="fp32")
    coloured = load(Model(given.generators, given.domains, {"image": {"keep_lightness": True}}), precision="fp32")
    levels = np.linspace(0, np.iinfo(dtype).max, 40 * 50).astype(dtype).reshape(40, 50, 1)
    gray = np.stack([levels, noise(40, 50, 1, dtype=dtype)])
    kept = coloured(gray, strength=strength)
    assert np.abs(lightness(kept) - lightness(gray)).max() < 1
    assert np.abs(lightness(free(gray, strength=strength)) - lightness(gray)).max() > 20
    assert np.ptp(kept.astype(float), axis=-1).mean() > 0.05 * np.iinfo(dtype).max  # it is coloured
    hue = lambda pixels: pixels.argmax(-1)[(pixels.max(-1) > pixels.min(-1) + 9)]  # noqa: E731
    assert len(np.unique(hue(kept))) == 3


def test_colour_to_colour_is_never_held_to_a_lightness():
    told = Model(model().generators, ("day", "night"), {"image": {"keep_lightness": True}})
    pixels = noise(16, 16, 3)
    assert np.array_equal(load(told, precision="fp32")(pixels, "day"), load(model(), precision="fp32")(pixels, "day"))


@pytest.mark.parametrize("channels", [(3, 3), (1, 3), (3, 1)])
def test_part_of_the_way(channels):
    given = load(model(channels_in=channels[0], channels_out=channels[1], directions=("ab",)))
    pixels = noise(24, 32, channels[0])
    full, half = given(pixels).astype(float), given(pixels, strength=0.5)
    before = pixels.repeat(3, 2) if channels == (1, 3) else pixels
    if channels == (3, 1):
        before = np.asarray(Image.fromarray(pixels).convert("L"))[..., None]
    assert np.abs(half - (before + full) / 2).max() <= 2  # of a level; bf16 where the chip has it
    assert np.abs(given(pixels, strength=0).astype(int) - before).max() <= (channels == (3, 1))
    assert np.array_equal(given.to("night")(pixels, strength=1), full)
    for wrong in (-0.1, 1.5):
        with pytest.raises(BadInput, match="--strength"):
            given(pixels, strength=wrong)


def test_one_direction(translator):
    pixels = noise(8, 8, 3)
    assert translator.domains == ("day", "night")
    assert np.array_equal(translator.to("day")(pixels), translator(pixels, "day"))
    assert not np.array_equal(translator.to("day")(pixels), translator.to("night")(pixels))
    one_way = load(model(directions=("ba",)), precision="fp32")
    assert np.array_equal(one_way(pixels), one_way(pixels, to="day"))
    with pytest.raises(BadInput, match="this model takes --to day"):
        one_way(pixels, "night")


def test_what_can_be_loaded(translator, tmp_path):
    pixels = noise(8, 8, 3)
    expected = translator(pixels, "day")
    translator.save(tmp_path / "model.safetensors")
    for given in (
        tmp_path / "model.safetensors", str(tmp_path / "model.safetensors"), tmp_path, model(),
        SimpleNamespace(folder=tmp_path),  # as `train` returns it
    ):  # fmt: skip
        assert np.array_equal(viceversa.load(given, precision="fp32")(pixels, "day"), expected)


def test_a_tensor_may_overshoot_a_little(translator):
    assert translator(torch.full((1, 3, 8, 8), 1.4), "night").shape == (1, 3, 8, 8)


def test_what_is_shown_of_a_translator(translator):
    assert repr(translator) == "<Translator day <-> night, resnet, on cpu>"
    one_way = load(model(directions=("ba",), kind="unet", halvings=5), device="cpu")
    assert repr(one_way) == "<Translator day <- night, unet, on cpu>"


def test_saving_does_not_change_the_weights(tmp_path):
    used = load(model(), precision="auto")
    used(noise(8, 8, 3), "day")
    used.save(tmp_path / "again.safetensors")
    again = load_model(tmp_path / "again.safetensors").generators["ab"].state_dict()
    for name, weight in model().generators["ab"].state_dict().items():
        assert torch.equal(weight, again[name])


def test_threads_share_one_translator():
    shared, results = load(model(), precision="fp32"), {}

    def work(n):
        results[n] = shared(noise(20, 20, 3, seed=n), "day" if n % 2 else "night")

    threads = [threading.Thread(target=work, args=(n,)) for n in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    alone = load(model(), precision="fp32")
    for n, result in results.items():
        assert np.array_equal(result, alone(noise(20, 20, 3, seed=n), "day" if n % 2 else "night"))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))])  # noqa: S301
def test_a_translator_can_be_copied_and_sent_to_other_processes(translator, copied):
    pixels = noise(20, 30, 3)
    expected = translator(pixels, "night")
    again = copied(translator)
    assert np.array_equal(again(pixels, "night"), expected) and again.domains == translator.domains
    assert np.array_equal(copied(translator.to("night"))(pixels), expected)


class Crowded(ResnetGenerator):
    """A generator on a device that has less memory than it says: whole images of more than so many pixels fail."""

    room = 0

    def forward(self, x, seen=None):
        if x.shape[2] * x.shape[3] > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB.")
        return super().forward(x)


def test_out_of_memory_it_is_tried_once_more_with_half_of_it(monkeypatch):
    monkeypatch.setattr(tiles, "TILE", 1 << 14)
    monkeypatch.setattr(tiles, "WORKING", 40 << 14)
    given = model(width=16)
    for direction, generator in given.generators.items():
        crowded = Crowded(generator.spec).eval()
        crowded.load_state_dict(generator.state_dict())
        given.generators[direction] = crowded
    pixels = noise(300, 400, 3)
    whole = int(tiles.whole_bytes(given.spec("ab"), 300, 400, torch.float32, torch.device("cpu")))
    tiled = load(given, device="cpu", precision="fp32", memory=whole + 1)(pixels, "night")
    assert np.abs(tiled.astype(int) - load(model(width=16), precision="fp32")(pixels, "night")).max() <= 1
    with pytest.raises(BadInput, match=r"image of 400x300 takes .* raise --memory, or use --size"):
        load(given, device="cpu", precision="fp32", memory=whole // 4)(pixels, "night")
    with pytest.raises(BadInput, match=r"out of memory at an image of 400x300: .*--memory"):
        load(given, device="cpu", precision="fp32", memory=4 * whole)(pixels, "night")


@pytest.mark.parametrize("error", [torch.OutOfMemoryError("CUDA out of memory."), MemoryError()])
def test_out_of_memory_beside_the_network_is_failed(translator, monkeypatch, error):
    """Where the picture is brought to --size and back, in full."""

    def resize(*arguments):
        raise error

    monkeypatch.setattr("viceversa.translation.translator.resize", resize)
    with pytest.raises(Failed, match="out of memory: close what else uses it, or use --size"):
        translator(noise(30, 40, 3), "night", size=20)
    with pytest.raises(Failed, match="out of memory"):
        translator.frames("night", size=20)(noise(30, 40, 3))


@pytest.mark.parametrize("kind", ["resnet", "pyramid"])
def test_a_generator_that_sees_is_told_of_the_whole_picture(kind):
    """In a batch, by tiles and padded as alone."""
    seeing = load(model(kind=kind, levels=int(kind == "pyramid"), sees=True), precision="fp32")
    pixels = noise(2, 60, 83, 3)
    both = seeing(pixels, "night")
    assert both.shape == pixels.shape and np.array_equal(both[1], seeing(pixels[1], "night"))
    x = pictures.to_tensor(pixels[:1, :56, :80])
    generator = seeing.model.generators["ab"]
    with torch.no_grad():
        told, other = (generator(x, shared(seeing.device).see(seen)[0]) for seen in (x, pictures.to_tensor(pixels[1:])))
    torch.testing.assert_close(seeing(x, "night"), told, rtol=0, atol=1e-5)
    assert (told - other).abs().max() > 1e-3


@pytest.mark.parametrize("height, width, halved", [(127, 150, 0), (128, 150, 1), (131, 270, 1), (257, 259, 2)])
@pytest.mark.parametrize("kind", [{"kind": "pyramid", "levels": 1}, {"sees": True}], ids=["pyramid", "sees"])
def test_large_photos_are_looked_at_from_as_far_as_was_trained(height, width, halved, kind):
    """Things are as large then as they were in training; the detail comes back from the photo."""
    torch.manual_seed(0)
    given = model(**kind, image={"size": 64, "resize": "short"})
    pyramid = load(given, precision="fp32")
    photo = torch.rand(1, 3, height, width) * 2 - 1
    made = pyramid(photo, to="night")
    assert made.shape == photo.shape and made.abs().max() <= 1
    side = 2**halved
    right, bottom = -width % side, -height % side
    copies = halvings(F.pad(photo, (0, right, 0, bottom), "reflect"), halved)
    network = pyramid.network("ab", torch.float32)
    wanted = network(copies[-1])
    for n in reversed(range(halved)):
        wanted = raised(wanted, None, copies[n], copies[n + 1])
    torch.testing.assert_close(made, wanted[:, :, :height, :width].clamp(-1, 1))
    if halved:
        assert (made - network(photo)).abs().mean() > 1e-3  # which is how it would be otherwise
    for dtype in (np.uint8, np.uint16):  # of levels, floats are never held in full
        levels = pictures.to_pixels(torch.cat([photo, -photo]), dtype)
        found = pyramid(levels, to="night")
        same = pictures.to_pixels(pyramid(pictures.to_tensor(levels), to="night"), dtype)
        assert found.shape == levels.shape and found.dtype == dtype
        assert np.abs(found.astype(int) - same).max() <= 1
        assert np.array_equal(found[0], pyramid(levels[0], to="night"))
    pixels = pictures.to_pixels(photo)[0]
    film = pyramid.frames("night", steady=False)
    assert np.array_equal(film(pixels), pyramid(pixels, to="night"))
    with torch.inference_mode():
        torch.testing.assert_close(pyramid(photo, to="night"), made)


@pytest.mark.parametrize("image", [{"size": 64, "resize": "none"}, {}])
def test_where_no_size_was_trained_on_photos_are_shown_as_they_are(image):
    given = load(model(kind="pyramid", levels=1, image=image), precision="fp32")
    photo = torch.rand(1, 3, 256, 256) * 2 - 1
    torch.testing.assert_close(given(photo, to="night"), given.network("ab", torch.float32)(photo))


def test_a_pyramid_keeps_the_detail_whatever_the_number_format():
    """Its bands are carried over in float32, also where the network computes in bf16."""
    given = model(kind="pyramid", levels=2)
    deep = noise(64, 64, 3, dtype=np.uint16)
    exact, quick = (load(given, precision=precision)(deep, "night").astype(int) for precision in ("fp32", "auto"))
    assert np.array_equal(exact, quick)
    fine = [load(given, precision=p)(pictures.to_tensor(deep), "night") for p in ("fp32", "auto")]
    finest = [x - F.interpolate(F.avg_pool2d(x, 2), scale_factor=2, mode="bilinear") for x in fine]
    assert (finest[0] - finest[1]).abs().mean() < 0.02 * finest[0].abs().mean()


def test_large_images_by_tiles_are_the_same(monkeypatch):
    tiled = []
    original = tiles.translate
    monkeypatch.setattr(tiles, "translate", lambda *a, **k: tiled.append(1) or original(*a, **k))
    pixels = noise(500, 613, 3)
    expected = load(model(width=16), precision="fp32", memory="4GB")(pixels, "night")
    assert not tiled
    assert np.array_equal(load(model(width=16), precision="fp32", memory="205MB")(pixels, "night"), expected)
    assert tiled


@pytest.mark.parametrize(
    "given, message",
    [
        (noise(8, 8, 4), "takes 3 channels, not 4; leave alpha out, or give a PIL image"),
        (noise(8, 8), "takes 3 channels, not 1; repeat it three times, or give a PIL image"),
        (noise(8), "give uint8"),
        (noise(0, 8, 3), "0x8x3"),
        (noise(8, 8, 3).astype(np.float32), "float32"),
        (torch.zeros(1, 1, 8, 8), "takes 3 channels, not 1"),
        (torch.zeros(3, 8, 8), "B, C, H, W"),
        (torch.zeros(1, 3, 8, 8, dtype=torch.uint8), "floats"),
        (Image.new("F", (4, 4)), r"mode F .* scale it to a uint16 array \(H, W, C\)"),
        (torch.full((1, 3, 8, 8), torch.nan), "a tensor that holds NaN"),
        (torch.tensor([0.5, 1, torch.nan, 0] * 48).view(1, 3, 8, 8), "a tensor that holds NaN"),
        (torch.full((1, 3, 8, 8), torch.inf), "values up to inf"),
        (torch.full((1, 3, 8, 8), 200.0), r"values up to 200: bring them to \[-1, 1\]"),
        (torch.full((1, 3, 8, 8), -1.6), "values up to 1.6"),
        (7, "a int"),
        (".", "a folder, and one image is translated at a time: give each, or use"),
        ("no such photo.png", "No such file"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_cannot_be_translated_is_said(translator, given, message):
    with pytest.raises(BadInput, match=message):
        translator(given, "night")


def test_unknown_domains_are_answered_with_those_there_are(translator):
    with pytest.raises(BadInput, match=r"did you mean night\? \(its domains are day and night\)"):
        translator(noise(8, 8, 3), "nigth")
    with pytest.raises(BadInput, match="--to day or --to night"):
        translator.to("zebra")
    with pytest.raises(BadInput, match="which way"):
        translator(noise(8, 8, 3))
    with pytest.raises(BadInput, match="no model"):
        load("no such model")


def test_domains_are_compared_as_they_are_seen():
    """An accent may be a part of its letter, or stand behind it, as names from Apple's file system do."""
    composed, apart = unicodedata.normalize("NFC", "dé"), unicodedata.normalize("NFD", "dé")
    assert composed != apart
    pixels = noise(8, 8, 3)
    for name, asked in ((composed, apart), (apart, composed), (apart, apart)):
        named = Model(model().generators, (name, "night"))
        assert load(named, precision="fp32")(pixels, asked).shape == pixels.shape


@pytest.mark.parametrize("text, size", [("4GB", 4e9), ("1.5g", 1.5e9), ("2 GiB", 2**31), ("5000000", 5e6)])
def test_amounts_of_memory(text, size):
    assert bytes_of(text) == size


@pytest.mark.parametrize("text", ["", "0GB", "4XB", "-1GB", "much", "4", "4.5"])
def test_no_amounts_of_memory(text):
    with pytest.raises(BadInput, match="--memory"):
        load(model(), memory=text)


def photo(height=240, width=320):
    """Soft light, and detail that half the size does not hold."""
    random = torch.Generator().manual_seed(2)
    soft = resize(torch.randn(1, 3, 6, 8, generator=random), (height, width))
    fine = torch.randn(1, 3, height, width, generator=random)
    return (0.4 * soft + 0.15 * fine * soft.abs()).clamp(-1, 1)


def test_size_brings_a_small_translation_back_with_the_photos_detail():
    """Of a translation whose truth is known at every size: darker, bluer, contrast by place, partly inverted."""
    x = photo()
    place = lambda like: torch.linspace(-0.6, 0.9, like.shape[3])  # noqa: E731
    night = lambda y: y * place(y) * torch.tensor([0.5, 0.7, 1.0]).view(1, 3, 1, 1) - 0.2  # noqa: E731
    small = resize(x, (80, 107))
    truth, enlarged = night(x), resize(night(small), x.shape[2:])
    error = lambda y: float((y - truth).square().mean())  # noqa: E731
    result = error(with_detail(x, small, night(small)))
    assert result < error(enlarged) / 20
    assert result < error(enlarged + x - resize(small, x.shape[2:])) / 20  # detail as it is in the photo


def test_size_keeps_what_the_translation_invented():
    x = photo()
    small = resize(x, (120, 160))
    stripes = (0.5 * torch.sign(torch.sin(torch.arange(160) * 0.8))).expand(1, 3, 120, 160)
    back = resize(with_detail(x, small, stripes), (120, 160))
    assert (back - stripes).square().mean() < 0.03 * stripes.square().mean()


@pytest.mark.parametrize("size", [8, 40, 100])
def test_size_returns_at_the_photos_own(translator, size):
    pixels = noise(53, 77, 3)
    translated = translator(pixels, "night", size=size)
    assert translated.shape == pixels.shape
    assert not np.array_equal(translated, translator(pixels, "night"))
    with pytest.raises(BadInput, match="--size 0"):
        translator(pixels, "night", size=0)


@pytest.mark.parametrize(
    "asked, message",
    [
        ({"size": "x"}, "size='x': must be a whole number"),
        ({"size": 33.3}, "size=33.3: must be a whole number"),
        ({"strength": "0.5"}, "strength='0.5': must be a number"),
        ({"strength": None}, "strength=None: must be a number"),
        ({"strength": float("nan")}, "--strength nan: must be finite"),
    ],
    ids=str,
)
def test_what_is_asked_for_is_looked_at_as_by_the_command(translator, asked, message):
    with pytest.raises(BadInput, match=message):
        translator(noise(8, 8, 3), "night", **asked)
    with pytest.raises(BadInput, match=message):
        translator.frames("night", **asked)


def test_a_size_that_makes_a_picture_enormous_is_refused(translator):
    with pytest.raises(BadInput, match="--size 64 would make 1920000x64 pixels of 60000x2, and a side has 65,536 at"):
        translator(noise(2, 60_000, 3), "night", size=64)
    assert translator(noise(2, 60_000, 3), "night", size=1).shape == (2, 60_000, 3)
    assert translator(noise(2, 70_000, 3), "night", size=2).shape == (2, 70_000, 3)


def test_detail_of_colour_for_gray_and_of_gray_for_colour():
    x, small = photo(), resize(photo(), (120, 160))
    for wide, narrow in ((x, small[:, :1]), (x[:, :1], small)):
        low = resize(wide, (120, 160))
        assert with_detail(wide, low, narrow).shape == (1, narrow.shape[1], 240, 320)
    assert detail.slope(small, small).sub(1).abs().max() < 1e-3


def test_a_model_without_a_file_can_be_saved(tmp_path):
    Translator(model()).save(tmp_path / "m.safetensors")
    save_model(tmp_path / "n.safetensors", model())
    assert (tmp_path / "m.safetensors").read_bytes() == (tmp_path / "n.safetensors").read_bytes()


def test_the_callers_threads_are_left_as_they_were():
    """In a container with fewer cores than the machine fewer threads compute, and only then."""
    used = []
    kept = model(directions=("ab",))
    kept.generators["ab"].register_forward_pre_hook(lambda *_: used.append(torch.get_num_threads()))
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(1000)
        Translator(kept, device="cpu")(noise(16, 16, 3), to="night")
        assert torch.get_num_threads() == 1000
    finally:
        torch.set_num_threads(before)
    assert used and max(used) <= (os.cpu_count() or 1)
