"""Runs in the formats of training, with real stills and numbers, and the page in a real browser."""

import base64
import io
import json
import math
import os
import re
import subprocess
import sys
import time
from dataclasses import asdict

import numpy as np
import pytest
import torch
from browser import opened
from patience import LONG
from PIL import Image

from viceversa import config
from viceversa.errors import BadInput
from viceversa.pages.html import figures, percent
from viceversa.pages.report import Figure, Section, chart, extent, thinned_curve, write_report
from viceversa.training import progress
from viceversa.training.checkpoint import Position
from viceversa.training.metrics import Metrics
from viceversa.training.runs import read_run

STEPS = 12  # an epoch


class Shade(torch.nn.Module):
    """A generator whose work can be told from its pixels: it moves every value towards `goal`."""

    def __init__(self, goal, share):
        super().__init__()
        self.goal, self.share = goal, share

    def forward(self, x):
        return x * (1 - self.share) + self.goal * self.share


def picture(seed, size=32):
    random = np.random.default_rng(seed)
    small = Image.fromarray(random.integers(0, 256, (4, 4, 3), np.uint8))
    return np.asarray(small.resize((size, size), Image.Resampling.BICUBIC))


def make_run(folder, epochs=6, *, scores=True, names=("day", "night"), size=32, warnings=(), seed=1, **settings):
    folder.mkdir(parents=True)
    given = asdict(config.Train(a="photos/day", b="photos/night", out=folder, crop=size, seed=seed, **settings))
    (folder / "config.json").write_text(
        json.dumps(
            {
                "settings": given, "domains": names, "seed": seed, "precision": "fp32", "device": "cpu: test",
                "versions": {"viceversa": "0.1.0", "torch": "2.13.0", "python": "3.11"},
                "images": {"a": 12, "b": 10, "test_a": 3, "test_b": 2}, "held_out": None, "skipped": [],
            },
            default=str,
        )
    )  # fmt: skip
    if not epochs:
        return folder
    tests = [picture(n, size) for n in range(5)]
    shown = progress.Progress(folder, names, tests[:3], tests[3:])
    numbers = Metrics(folder, names, tensorboard=False)
    for epoch in range(1, epochs + 1):
        share = epoch / (epochs + 1)
        for half in (1, 2):
            step = (epoch - 1) * STEPS + half * STEPS // 2
            losses = {f"cycle/{d}": 3 / step for d in "ab"} | {f"discriminator/{d}": 0.2 for d in "ab"}
            losses |= {"adversarial/ab": 0.3, "adversarial/ba": 0.4, "identity/a": 1 / step, "identity/b": 2 / step}
            numbers.losses(step, epoch, step / 2, losses, 2e-4, 3.5, end_of_epoch=half == 2)
        shown.show(epoch, Shade(-1.0, share), Shade(1.0, share / 2), torch.device("cpu"))
        if scores:
            numbers.score(step, epoch, step / 2, "kid", "lite0", 0.1 + abs(epoch - 4) / 100, 0.2)
    for epoch, text in warnings:
        numbers.warning(epoch * STEPS, epoch, epoch * STEPS / 2, text)
    numbers.close()
    return folder


def text_of(page):
    return re.sub(r"data:image/[^\"]*", "", page.read_text(encoding="utf-8"))


def test_page_tells_of_the_run(tmp_path):
    said = [(2, "the discriminator of night has won"), (3, "the discriminator of night has won"), (3, "collapse")]
    run = make_run(tmp_path / "run", warnings=said, epochs=6, decay_epochs=0, identity=0.5, blocks=6)
    page = write_report([run])
    assert page == run / "report.html"
    text = text_of(page)
    assert "12 images of day and 10 of night" in text
    assert "6 of 100" in text  # 6 epochs of 100
    assert "cpu: test" in text and "3.5 images/s" in text and "<dd>0:36</dd>" in text
    assert "KID was best after epoch 4: 0.200 to night, 0.100 to day." in text
    assert "ResNet generators of 6 blocks" in text and "identity 0.5" in text
    assert "The discriminator of night has won.<small>epochs 2, 3</small>" in text.replace("\n", "")
    assert re.search(r'<tr class="chosen"><th scope="row"><code>--identity</code></th><td>0.5</td>', text)
    assert not re.search(r'class="chosen"><th scope="row"><code>--cycle<', text)
    assert 'src="http' not in text and "url(" not in text and "@import" not in text


def test_what_is_trained_is_called_by_its_name(tmp_path):
    looking = {"generator": "pyramid", "sees": True, "levels": 1, "blocks": 6, "projected": 0.7, "patch": 64}
    alone = {"generator": "unet", "discriminator": "none", "projected": 1.0}
    for given, words in (
        (looking, "Pyramid generators of 1 level and 6 blocks, which see, and discriminators on frozen features "
                  "(weight 0.7) and patch discriminators of 3 layers on squares of 64 px, of width 64."),
        (alone, "U-Net generators and discriminators on frozen features (weight 1) and no others, of width 64."),
    ):  # fmt: skip
        assert words in text_of(write_report([make_run(tmp_path / str(len(words)), **given)]))


def test_pictures_are_those_of_the_best_epoch(tmp_path):
    run = make_run(tmp_path / "run")
    html = write_report([run]).read_text(encoding="utf-8")
    assert "after epoch 4, the best" in html
    shown = re.findall(r'class="after" src="data:image/webp;base64,([^"]*)"', html)
    assert len(shown) == 5  # three of day, two of night
    of_page = np.asarray(Image.open(io.BytesIO(base64.b64decode(shown[0]))).convert("RGB"), float)
    best = np.asarray(progress.cells(dict(progress.stills(run))[4])["ab"][0][1], float)
    newest = np.asarray(progress.cells(dict(progress.stills(run))[6])["ab"][0][1], float)
    assert abs(of_page - best).mean() < 5 < abs(of_page - newest).mean()


def test_round_trip_is_measured(tmp_path):
    run = make_run(tmp_path / "run", epochs=1, scores=False)
    source, _, back = progress.cells(dict(progress.stills(run))[1])["ab"][0]
    off = np.abs(np.asarray(source, float) - np.asarray(back, float)).mean() / 255
    assert f"and back to day, {percent(off)} off" in text_of(write_report([run]))


@pytest.mark.parametrize("epochs", [0, 1, 3])
def test_a_run_that_has_only_begun(tmp_path, epochs):
    run = make_run(tmp_path / "run", epochs=epochs, scores=False)
    with open(run / "metrics.jsonl", "a") as file:
        file.write('{"step": 40, "epo')  # being written
    text = text_of(write_report([run]))
    assert "Scores" not in text
    assert ("No numbers yet" in text) == (epochs == 0)
    assert ("No pictures yet" in text) == (epochs == 0)


def test_values_that_are_no_numbers_are_left_out(tmp_path):
    run = make_run(tmp_path / "run", epochs=2)
    with open(run / "metrics.jsonl", "a") as file:
        lost = {"step": 36, "epoch": 3, "seconds": 18.0, "loss": {"cycle/a": float("nan")}}
        file.write(json.dumps(lost) + "\n")
        worse = {"kind": "kid", "features": "lite0", "a": float("nan"), "b": 0.1, "mean": float("nan")}
        file.write(json.dumps({"step": 36, "epoch": 3, "seconds": 18.0, "score": worse}) + "\n")
    text = text_of(write_report([run]))
    assert "best after epoch 2" in text
    assert not re.search(r"\bnan\b", text, re.IGNORECASE)


def test_names_are_text_not_markup(tmp_path):
    run = make_run(tmp_path / "run", 2, names=("<b>day", "ni'ght\""), warnings=[(1, "</script><script>alert(1)")])
    text = text_of(write_report([run]))
    assert "<b>day" not in text and "<script>alert" not in text and "&lt;b&gt;day" in text


def charts(page):
    """The curves of a page, by their titles: epochs, and values."""
    drawn = re.findall(r'<script type="application/json">(\{.*?\})</script>', page.read_text(encoding="utf-8"))
    return {chart["title"]: chart["curves"] for chart in map(json.loads, drawn)}


def test_scores_of_another_kind_and_of_before_they_began_anew_are_left_out(tmp_path):
    run = make_run(tmp_path / "run", epochs=3)
    lines = len((run / "metrics.jsonl").read_text().splitlines())
    numbers = Metrics(run, ("day", "night"), False, Position(lines=lines))
    for epoch, value in ((4, 150.0), (5, 140.0)):
        numbers.score(epoch * STEPS, epoch, 30.0, "frechet", "lite0", value, value)
    numbers.score(6 * STEPS, 6, 36.0, "frechet", "lite0", 160.0, 160.0, first=True)  # on other test images
    numbers.score(7 * STEPS, 7, 42.0, "frechet", "lite0", 155.0, 155.0)
    numbers.close()
    found = read_run(run)
    assert [score["epoch"] for score in found.scores] == [6, 7] and found.best["epoch"] == 7
    page = write_report([run])
    text = text_of(page)
    assert "Left out: 5 earlier scores" in text and "KID" not in text
    assert charts(page)["Fréchet distance (lite0 features)"][2][1] == [160.0, 155.0]


def test_curves_stand_at_their_epochs_whatever_the_batch_was(tmp_path):
    run = make_run(tmp_path / "run", epochs=2, scores=False)
    lines = len((run / "metrics.jsonl").read_text().splitlines())
    numbers = Metrics(run, ("day", "night"), False, Position(lines=lines))
    for step, ended in ((27, False), (30, True), (33, False)):  # twice the batch: half the steps
        numbers.losses(step, 4 - (step <= 30), step / 2, {"cycle/a": 1.0, "cycle/b": 1.0}, 2e-4, 3.5, ended)
    numbers.close()
    assert read_run(run).epochs_at([6, 12, 24, 27, 30, 33]) == [0.5, 1, 2, 2.5, 3, 3.5]
    assert charts(write_report([run]))["Round trip"][0][0] == [0.5, 1, 1.5, 2, 2.5, 3, 3.5]


def test_the_slider_shows_the_newest_test_pictures_and_says_what_is_left_out(tmp_path):
    run = make_run(tmp_path / "run", epochs=2)
    shown = progress.Progress(run, ("day", "night"), [picture(7)], [picture(8)])
    for epoch in (3, 4):
        shown.show(epoch, Shade(-1.0, 0.5), Shade(1.0, 0.5), torch.device("cpu"))
    html = write_report([run]).read_text(encoding="utf-8")
    assert [int(n) for n in re.findall(r'"epoch": (\d+), "kept"', html)] == [3, 4]
    assert "after every epoch:" in html and "Left out: 2 earlier epochs, with other test images." in html
    assert html.count("<canvas") == 6  # of one picture each way
    assert "Left out" not in text_of(write_report([make_run(tmp_path / "other", epochs=2)]))


def test_several_runs_side_by_side(tmp_path):
    runs = [
        make_run(tmp_path / "small", epochs=6),
        make_run(tmp_path / "large", epochs=4, size=64, identity=0.0),
        make_run(tmp_path / "begun", epochs=0),
    ]
    page = write_report(runs, tmp_path / "all.html")
    text = text_of(page)
    assert all(f'<a href="#run-{n}">{run.name}</a>' in text for n, run in enumerate(runs, 1))
    assert re.search(r"<code>--identity</code></th><td>5</td><td>0</td><td>5</td>", text)
    assert "--cycle</code></th><td>10</td><td>10" not in text
    assert text.count("large, epoch 4") == 5  # the same five pictures, found although twice as large
    assert text.count("begun was not shown this picture") == 5
    assert not (runs[0] / "report.html").exists()


@pytest.mark.parametrize("encoding", ["ascii:strict", "cp1252:strict"])
def test_names_that_no_terminal_can_print(tmp_path, encoding):
    run = make_run(tmp_path / os.fsdecode(b"\xc4\xe3\xba\xc3"), epochs=1)
    command = [sys.executable, "-m", "viceversa", "report", run]
    done = subprocess.run(command, env=os.environ | {"PYTHONIOENCODING": encoding}, capture_output=True)
    assert done.returncode == 0 and rb"\udcc4\udce3" in done.stdout, done.stderr
    assert (run / "report.html").stat().st_size > 1000


def test_two_runs_of_one_name_are_told_apart(tmp_path):
    runs = [make_run(tmp_path / where / "run", epochs=0) for where in ("x", "y")]
    text = text_of(write_report(runs, tmp_path / "all.html"))
    assert str(runs[0]) in text and str(runs[1]) in text


def test_page_stays_within_its_size(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", epochs=9, size=64)
    page = write_report([run])
    images, text = page.stat().st_size - len(text_of(page)), len(text_of(page))
    monkeypatch.setattr("viceversa.pages.report.IMAGE_BYTES", int(0.7 * images))
    page = write_report([run])
    epochs = [int(n) for n in re.findall(r'"epoch": (\d+), "kept"', page.read_text(encoding="utf-8"))]
    assert page.stat().st_size < 0.7 * images + text
    assert {1, 4, 9} <= set(epochs) and 3 < len(epochs) < 9  # first, best and newest stay


def test_the_slider_has_first_best_and_newest_where_all_kept_epochs_are_too_many(tmp_path, monkeypatch):
    run = make_run(tmp_path / "run", epochs=9, size=64)
    page = write_report([run])
    images = page.stat().st_size - len(text_of(page))
    (run / "epochs").mkdir()
    for epoch in range(1, 10):
        (run / "epochs" / f"epoch_{epoch:04d}.safetensors").write_bytes(b"a model")
    monkeypatch.setattr("viceversa.pages.report.IMAGE_BYTES", int(0.7 * images))
    text = write_report([run]).read_text(encoding="utf-8")
    epochs = {int(n) for n in re.findall(r'"epoch": (\d+), "kept"', text)}
    assert {1, 4, 9} <= epochs and len(epochs) < 9


def test_extra_sections(tmp_path):
    file = io.BytesIO()
    Image.new("RGB", (8, 8), "red").save(file, "PNG")
    extra = [
        Section(
            title="The strip that was never trained on",
            text="Night where it was day.",
            headers=["", "PSNR"],
            rows=[["translated", "22.4 dB"], ["doing nothing", "14.0 dB"]],
            figures=[[Figure(image=file.getvalue(), caption="the truth <here>")]],
        ),
        Section(title="Nothing but words", text="So."),
    ]
    html = write_report([make_run(tmp_path / "run", epochs=1)], extra=extra).read_text(encoding="utf-8")
    assert '<th scope="row">translated</th><td class="number">22.4 dB</td>' in html
    assert "data:image/png;base64," in html and 'alt="the truth &lt;here&gt;"' in html
    assert html.index("The strip that was") < html.index("Before and after") < html.index("Epoch by epoch")


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda folder: None, "no such run folder"),
        (lambda folder: folder.mkdir(), "no config.json"),
        (lambda folder: folder.write_text("a file"), "is no run folder"),
        (lambda folder: (folder.mkdir(), (folder / "config.json").write_text("{")), "is not JSON"),
        (lambda folder: (folder.mkdir(), (folder / "config.json").write_text('{"name": "npm"}')), "not written by"),
    ],
)
def test_what_is_no_run_is_one_clear_line(tmp_path, make, says):
    make(tmp_path / "thing")
    with pytest.raises(BadInput, match=says) as told:
        write_report([tmp_path / "thing"], tmp_path / "page.html")
    assert "\n" not in str(told.value) and "thing" in str(told.value)
    assert not (tmp_path / "page.html").exists()


def test_wrong_use(tmp_path):
    run = make_run(tmp_path / "run", epochs=0)
    with pytest.raises(BadInput, match="no run folder given"):
        write_report([])
    with pytest.raises(BadInput, match="is a folder"):
        write_report([run], tmp_path)
    photo = tmp_path / "photo.jpg"
    photo.write_bytes(b"a photo")
    with pytest.raises(BadInput, match=r"name a file that ends in \.html"):
        write_report([run], photo)
    assert photo.read_bytes() == b"a photo"
    (run / "progress").mkdir()
    (run / "progress" / "epoch_0001.webp").write_bytes(b"half")
    with pytest.raises(BadInput, match="epoch_0001"):
        write_report([run])


def test_epochs_and_plans(tmp_path):
    run = read_run(make_run(tmp_path / "run", epochs=4, decay_epochs=0))
    assert (run.epoch, run.step, run.epoch_steps, run.speed) == (4, 48, 12, 3.5)
    assert run.planned == "100 epochs"
    assert read_run(make_run(tmp_path / "done", 4, decay_epochs=1) / ".").name == "done"
    clock = read_run(make_run(tmp_path / "clock", epochs=4, minutes=0.4))
    assert clock.seconds == 24 and clock.planned is None


def test_figures():
    assert [figures(v) for v in (0.0716, 221.83, 0.000123, -0.5, 0, None, float("nan"))] == [
        "0.0716", "222", "0.000123", "−0.500", "0", "–", "–",
    ]  # fmt: skip


def test_curves():
    drawn = chart("Loss", "", [("x", [(0.0, 1.0), (5.0, math.nan), (10.0, 2.0)]), ("y", [])], level=(3.0, "here"))
    assert drawn["curves"] == [[[0.0, 10.0], [1.0, 2.0]]] and drawn["names"] == ["x"]
    assert drawn["range"][0] == 0 and drawn["range"][1] > 3
    assert drawn["said"] == "x: 1.00 at first, 2.00 at the end"
    assert chart("", "", [("x", [(1, float("inf"))])]) is None


def test_a_spike_does_not_flatten_a_curve():
    assert extent([1.0] * 100 + [1000.0])[1] < 2.2
    assert extent([0.0]) == (0.0, 1.0)


def test_thinning_keeps_means_and_ends():
    few = thinned_curve([(float(n), float(n % 2)) for n in range(1, 1001)], 100)
    assert len(few) == 100 and few[-1][0] == 1000.0
    assert all(y == pytest.approx(0.5) for _, y in few)


def until(true, seconds=LONG):
    """The page's own rules forbid Playwright's `wait_for_function`, which evaluates strings."""
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.05)


def test_in_a_browser(tmp_path):
    run = make_run(tmp_path / "run", epochs=6)
    with opened(write_report([run])) as page:
        pixel = """n => {
            const pen = document.createElement("canvas").getContext("2d", { willReadFrequently: true });
            pen.drawImage(document.querySelectorAll("canvas")[n], 0, 0);
            return [...pen.getImageData(9, 9, 1, 1).data];
        }"""
        until(lambda: page.evaluate(pixel, 1)[3] > 0)
        last = page.evaluate(pixel, 1)

        slider = page.locator(".player input")
        slider.focus()
        page.keyboard.press("Home")
        assert page.locator(".player output").inner_text() == "epoch 1"
        until(lambda: page.evaluate(pixel, 1) != last)
        first = page.evaluate(pixel, 1)
        truth = np.asarray(progress.cells(dict(progress.stills(run))[1])["ab"][0][1])[9, 9]
        assert np.abs(np.array(first[:3]) - truth).max() <= 3
        page.keyboard.press("ArrowRight")
        assert page.locator(".player output").inner_text() == "epoch 2"

        slider.evaluate("element => element.blur()")  # arrows work without the focus, too
        page.keyboard.press("ArrowRight")
        assert page.locator(".player output").inner_text() == "epoch 3"
        page.keyboard.press("End")
        assert page.locator(".player output").inner_text() == "epoch 6"

        button = page.get_by_role("button", name="Play")
        button.click()
        assert page.get_by_role("button", name="Pause").is_visible()
        until(lambda: page.locator(".player output").inner_text() == "epoch 6")
        page.get_by_role("button", name="Play").wait_for()


def test_before_and_after_in_a_browser(tmp_path):
    with opened(write_report([make_run(tmp_path / "run", epochs=2)]), width=390, height=844, scheme="dark") as page:
        compare = page.locator(".compare").first
        edge = "compare => getComputedStyle(compare).getPropertyValue('--at')"
        assert compare.evaluate(edge) == "50%"
        box = compare.bounding_box()
        page.mouse.move(box["x"] + box["width"] * 0.5, box["y"] + 40)
        page.mouse.down()
        page.mouse.move(box["x"] + box["width"] * 0.8, box["y"] + 40)
        page.mouse.up()
        assert 70 < float(compare.evaluate(edge).rstrip("%")) < 90
        before = float(compare.evaluate(edge).rstrip("%"))
        page.keyboard.press("ArrowLeft")
        assert float(compare.evaluate(edge).rstrip("%")) == before - 1

        dark = page.evaluate("getComputedStyle(document.body).backgroundColor")
        page.emulate_media(color_scheme="light")
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") != dark
        page.set_viewport_size({"width": 700, "height": 1000})  # A4
        page.emulate_media(media="print")
        assert not page.locator(".player .bar").is_visible()
        assert page.locator(".compare .before").first.evaluate("image => getComputedStyle(image).clipPath") == "none"


def test_curves_in_a_browser(tmp_path):
    runs = [make_run(tmp_path / "one", epochs=3), make_run(tmp_path / "two", epochs=5)]
    with opened(write_report(runs, tmp_path / "both.html")) as page:
        drawing = page.locator(".chart", has_text="Round trip").last
        told = drawing.locator(".u-value")
        drawing.locator(".plot").focus()
        page.keyboard.press("Home")
        assert told.all_inner_texts()[:2] == ["0.5", "0.500"]  # epoch, and 3 / 6 steps
        page.keyboard.press("ArrowRight")
        assert told.first.inner_text() == "1"
        box = drawing.locator(".u-over").bounding_box()
        page.mouse.move(box["x"] + box["width"] - 3, box["y"] + 50)
        assert told.first.inner_text() == "5"
        ink = """[...document.querySelectorAll(".chart canvas")].every(canvas => {
            const { data } = canvas.getContext("2d").getImageData(0, 0, canvas.width, canvas.height);
            return data.some(value => value > 0);
        })"""
        assert page.evaluate(ink)
        named = page.evaluate("[...document.querySelectorAll('img, .sheet canvas, input, [role=img]')].every("
                              "e => e.alt || e.getAttribute('aria-label'))")  # fmt: skip
        assert named


def test_the_slider_names_the_kept_epochs(tmp_path):
    run = make_run(tmp_path / "run", epochs=3)
    (run / "epochs").mkdir()
    (run / "epochs" / "epoch_0002.safetensors").write_bytes(b"a model")
    with opened(write_report([run])) as page:
        assert page.locator(".kept").inner_text() == "The model of epoch 3 was not kept."
        page.locator(".player input").focus()
        page.keyboard.press("ArrowLeft")
        assert page.locator(".kept").inner_text().endswith(f"viceversa translate {run} --epoch 2")


@pytest.mark.parametrize("font", ["DejaVu Sans Mono", "DejaVu Serif", "monospace"])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(tmp_path, font, scheme):
    """Whatever fonts there are: long names, wide letters. (`opened` looks at the end.)"""
    long = "a-very-long-name-without-any-gap-that-somebody-gave-a-domain-once"
    runs = [make_run(tmp_path / long / "run", epochs=2, names=(long[:60], "night"), warnings=[(1, "x" * 90)])]
    runs.append(make_run(tmp_path / (long + "2"), epochs=2))
    for page_of in (runs, runs[:1]):
        with opened(write_report(page_of, tmp_path / "page.html"), width=390, height=844, scheme=scheme) as page:
            page.add_style_tag(content=f":root {{ --serif: '{font}'; --sans: '{font}'; --mono: '{font}' }}")
            page.evaluate("document.querySelectorAll('details').forEach(d => d.open = true)")
            assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
            page.set_viewport_size({"width": 700, "height": 1000})  # A4
            page.emulate_media(media="print")  # where tables cannot scroll


def test_one_of_a_kind_is_told_in_the_singular(tmp_path):
    run = make_run(tmp_path / "run", epochs=0, blocks=1, decay_epochs=0, discriminator_layers=1)
    config = json.loads((run / "config.json").read_text())
    config["settings"]["epochs"] = 1
    (run / "config.json").write_text(json.dumps(config))
    text = text_of(write_report([run]))
    assert "generators of 1 block and patch discriminators of 1 layer" in text
    assert not re.search(r"\b1 (epochs|blocks|layers)\b", text)
