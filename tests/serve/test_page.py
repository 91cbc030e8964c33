"""The page in headless Chromium: what a person does on it, what it asks the network for, and what it says."""

import functools
import io
import json
import threading
import time
import zipfile
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest
from browser import CHROMIUM, FLAGS
from patience import LONG
from PIL import Image
from serving import serving, write_model
from test_api import animation, film, picture

import viceversa
from viceversa import cli
from viceversa.serve import standalone

CAMERA = ["--use-fake-device-for-media-stream", "--use-fake-ui-for-media-stream"]


@pytest.fixture(scope="module")
def browser():
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    if CHROMIUM is None:
        pytest.skip("there is no Chromium here")
    with playwright.sync_playwright() as driver:
        started = driver.chromium.launch(executable_path=CHROMIUM, args=[*FLAGS, *CAMERA])
        yield started
        started.close()


@contextmanager
def visited(browser, url, width=1280, height=900, scheme="light", expected=(), before=None):
    """The page, ready; `before`: JavaScript that runs ahead of its own. At the end: nothing on the console, no request
    but to its own server, nothing wider than the window. `expected`: statuses of refusals, which Chromium writes to
    the console itself."""
    with browser.new_context(viewport={"width": width, "height": height}, color_scheme=scheme) as context:
        page = context.new_page()
        page.set_default_timeout(1000 * LONG)
        said, asked = [], []
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda request: asked.append(request.url))
        if before:
            page.add_init_script(before)
        page.goto(url)
        page.wait_for_selector("html[data-ready]")
        yield page
        ours = [text for text in said if not any(f"status of {status}" in text for status in expected)]
        assert ours == []
        assert [one for one in asked if not one.startswith((url, "blob:" + url))] == []
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")


def until(page, condition):
    """Wait for it in JavaScript. (Playwright's own way needs eval, which the page's policy forbids.)"""
    deadline = time.monotonic() + LONG
    while not page.evaluate(condition):
        assert time.monotonic() < deadline, condition
        page.wait_for_timeout(20)


def saved(page, button):
    with page.expect_download() as download:
        page.click(button)
    return download.value.suggested_filename, download.value.path().read_bytes()


def shown(page):
    page.wait_for_selector("#stage:not([hidden])")


def pixels(data):
    return np.asarray(Image.open(io.BytesIO(data)))


def give(page, *files):
    """Choose files: (name, type, bytes)."""
    page.set_input_files("#files", [{"name": n, "mimeType": t, "buffer": data} for n, t, data in files])


@pytest.mark.parametrize(("width", "height", "scheme"), [(1280, 900, "light"), (360, 740, "dark")])
def test_a_picture_there_and_back(browser, server, models, width, height, scheme):
    model = viceversa.load(models.first)
    with visited(browser, server.url + "/", width, height, scheme) as page:
        assert page.inner_text("h1") == "Day ⇄ night"
        page.check("input[name=way][value=day]")
        give(page, ("house.png", "image/png", picture(96, 64)))
        shown(page)
        name, data = saved(page, "#download")
        assert name == "house.day.png" and np.array_equal(pixels(data), model(pixels(picture(96, 64)), to="day"))
        # The slider, by keyboard and by pointer.
        slider = page.get_by_role("slider")
        assert slider.get_attribute("aria-valuetext") == "50% night"
        slider.focus()
        for _ in range(5):
            page.keyboard.press("ArrowRight")
        assert slider.get_attribute("aria-valuetext") == "55% night"
        page.keyboard.press("Home")
        assert page.evaluate("getComputedStyle(document.getElementById('compare')).getPropertyValue('--at')") == "0%"
        box = slider.bounding_box()
        page.mouse.click(box["x"] + 0.75 * box["width"], box["y"] + box["height"] / 2)
        assert 70 <= int(slider.input_value()) <= 80
        # The way back.
        page.click("#back")
        page.wait_for_selector("#back[aria-pressed=true]")
        name, data = saved(page, "#download")
        there_and_back = model(model(pixels(picture(96, 64)), to="day"), to="night")
        assert np.array_equal(pixels(data), there_and_back)
        # Another direction translates the same picture anew.
        page.check("input[name=way][value=night]")
        page.wait_for_selector("#there[aria-pressed=true]")
        until(page, "document.getElementById('shown').textContent.startsWith('house.night.png')")
        page.click("#new")
        assert page.is_visible("#drop")


def test_samples_cards_and_models(browser, server):
    with visited(browser, server.url + "/") as page:
        until(page, "[...document.querySelectorAll('.card img')].every(i => i.complete && i.naturalWidth > 0)")
        page.check("input[name=model][value=oneway]")
        assert page.inner_text("h1") == "Day → night" and page.locator("input[name=way]").count() == 1
        assert "3 epochs" in page.inner_text("#about")
        page.click(".samples button >> nth=1")
        shown(page)
        assert not page.is_visible("#back")  # this model knows one direction
        assert page.inner_text("#shown").startswith("earth-by-day.night.jpg")


def test_dropped_pasted_and_taken(browser, models, tmp_path):
    with serving(models.first, tmp=tmp_path) as server, visited(browser, server.url + "/") as page:
        data = page.evaluate_handle(
            """bytes => { const d = new DataTransfer();
            d.items.add(new File([new Uint8Array(bytes)], "dropped.png", {type: "image/png"})); return d; }""",
            list(picture()),
        )
        page.dispatch_event("#drop", "drop", {"dataTransfer": data})
        shown(page)
        assert page.inner_text("#shown").startswith("dropped.night.png")
        page.evaluate("d => dispatchEvent(new ClipboardEvent('paste', {clipboardData: d}))", data)
        shown(page)
        page.click("#new")
        page.click("#take")
        until(page, "document.getElementById('finder').videoWidth > 0")
        page.click("#shoot")
        shown(page)
        assert page.inner_text("#shown").startswith("photo.night.jpg")


def test_several_pictures_come_back_as_one_archive(browser, server):
    with visited(browser, server.url + "/") as page:
        files = [(f"{n}.png", "image/png", picture(seed=n)) for n in range(3)]
        inks = io.BytesIO()
        Image.new("CMYK", (64, 48)).save(inks, "JPEG")
        give(page, *files, ("ink.jpg", "image/jpeg", inks.getvalue()), ("notes.txt", "text/plain", b"no picture"))
        page.wait_for_selector("#batch:not([hidden])")
        assert page.inner_text("#batch-said").startswith("4 pictures are now night, 1 could not be translated")
        assert "Notes.txt: not a picture" in page.inner_text("#batch-failed")
        assert "1 picture (ink.jpg): CMYK" in page.inner_text("#batch-failed")
        name, data = saved(page, "#batch-download")
        assert name == "night.zip"
        assert zipfile.ZipFile(io.BytesIO(data)).namelist() == ["0.png", "1.png", "2.png", "ink.jpg", "failed.txt"]
        give(page, ("ink.jpg", "image/jpeg", inks.getvalue()))
        shown(page)
        assert "CMYK" in page.inner_text("#shown")


def test_a_film_with_progress_and_cancel(browser, server, tmp_path):
    with visited(browser, server.url + "/") as page:
        give(page, ("walk.mp4", "video/mp4", film(tmp_path / "walk.mp4", 12)))
        shown(page)
        assert page.locator("#compare video").count() == 2 and page.is_visible("#play")
        assert saved(page, "#download")[0] == "walk.night.mp4"
        give(page, ("moves.gif", "image/gif", animation()))
        shown(page)
        assert page.locator("#compare img").count() == 2
        give(page, ("long.mp4", "video/mp4", film(tmp_path / "long.mp4", 300, 320, 240)))
        until(page, "/[1-9]\\d* of 300/.test(document.getElementById('status').textContent)")
        page.click("#cancel")
        page.wait_for_selector("#work", state="hidden")
        assert page.is_visible("#drop") and not page.is_visible("#error")


# A film's own address is set only once the translated film is there.
LATE = """
const { set, ...kept } = Object.getOwnPropertyDescriptor(HTMLMediaElement.prototype, "src");
let first = null;
Object.defineProperty(HTMLMediaElement.prototype, "src", { ...kept, set(address) {
  if (address.startsWith("blob:")) return first.addEventListener("loadeddata", () => set.call(this, address));
  first = this;
  set.call(this, address);
} });
"""


def test_the_translated_film_may_be_there_before_the_film_itself(browser, server, tmp_path):
    with visited(browser, server.url + "/", before=LATE) as page:
        give(page, ("walk.mp4", "video/mp4", film(tmp_path / "walk.mp4", 12)))
        shown(page)
        assert page.locator("#compare video").count() == 2


def test_errors_are_sentences(browser, server):
    with visited(browser, server.url + "/", expected=(413, 415, 400)) as page:
        for data, words in ((b"hello", "Not a picture"), (picture(1200, 900, "JPEG"), "at most 1 megapixels")):
            give(page, ("bad.png", "image/png", data))
            page.wait_for_selector("#error:not([hidden])")
            said = page.inner_text("#error")
            assert words in said and said.endswith(".") and page.is_visible("#drop")
        give(page, ("good.png", "image/png", picture()))  # and it goes on
        shown(page)
        assert not page.is_visible("#error")


def test_a_newer_wish_goes_on_and_the_older_one_is_in_nobodys_way(browser, server):
    """Another direction, or another picture, while the server is still busy with the first."""
    with visited(browser, server.url + "/") as page:
        held = []
        page.route("**/v1/translate?*to=night*", lambda route: held.append(route))  # never answered
        page.route("**/v1/jobs?*", lambda route: held.append(route))
        give(page, ("house.png", "image/png", picture()))
        until(page, "!document.getElementById('work').hidden")
        page.check("input[name=way][value=day]")
        shown(page)
        assert page.inner_text("#shown").startswith("house.day.png") and not page.is_visible("#drop")
        give(page, *[(f"{n}.png", "image/png", picture(seed=n)) for n in range(2)])
        until(page, "!document.getElementById('work').hidden")
        give(page, ("other.png", "image/png", picture(seed=1)))
        until(page, "document.getElementById('shown').textContent.startsWith('other.day.png')")
        assert page.is_visible("#stage") and not page.is_visible("#drop") and not page.is_visible("#error")
        assert len(held) == 2


def test_a_job_that_cannot_be_asked_after_is_not_begun_again(browser, server):
    with visited(browser, server.url + "/", expected=(503,)) as page:
        asked = []
        page.on("request", lambda request: asked.append(request.method))
        busy = {"status": 503, "headers": {"Retry-After": "1"}, "body": '{"error": "too many requests at a time"}'}
        page.route("**/v1/jobs/*", lambda route: route.fulfill(**busy) if route.request.method == "GET"
                   else route.continue_())  # fmt: skip
        give(page, *[(f"{n}.png", "image/png", picture(seed=n)) for n in range(2)])
        page.wait_for_selector("#error:not([hidden])")
        assert page.inner_text("#error") == "Too many requests at a time."
        page.wait_for_timeout(1500)
        assert asked.count("POST") == 1 == asked.count("DELETE")


def test_by_keyboard_alone(browser, server):
    with visited(browser, server.url + "/") as page:
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.closest('.samples') !== null"):
                break
        page.keyboard.press("Enter")
        shown(page)
        for _ in range(40):
            page.keyboard.press("Tab")
            if page.evaluate("document.activeElement.id === 'slider'"):
                break
        page.keyboard.press("End")
        assert page.input_value("#slider") == "100"


def test_every_control_has_a_name(browser, server):
    """As a screen reader meets it."""
    with visited(browser, server.url + "/") as page:
        page.click(".samples button >> nth=0")
        shown(page)
        unnamed = page.evaluate(
            """[...document.querySelectorAll('button, a, input, img, progress, dialog')].filter(e => e.offsetParent &&
            !(e.textContent.trim() || e.getAttribute('aria-label') || e.closest('label') || e.alt !== undefined ||
              e.getAttribute('aria-labelledby'))).map(e => e.outerHTML)"""
        )
        assert unnamed == []
        assert page.locator("#compare img.after").get_attribute("alt")


def test_a_run_folder_shows_its_report_and_film(browser, models, tmp_path):
    run = tmp_path / "runs" / "evening"
    (run / "progress").mkdir(parents=True)
    (run / "model.safetensors").write_bytes(models.first.read_bytes())
    (run / "config.json").write_text("{}")
    (run / "report.html").write_text("<!doctype html><title>report</title><h1>How it went</h1>")
    (run / "progress" / "day2night.gif").write_bytes(animation())
    Image.new("RGB", (64, 40), "navy").save(run / "progress" / "epoch_0001.webp")
    with serving(run, tmp=tmp_path) as server, visited(browser, server.url + "/") as page:
        told = server.json("/v1/models")["models"][0]
        assert told["name"] == "evening" and server.ask(told["films"]["night"]).body == animation()
        assert "How it went" in server.ask(told["report"]).body.decode()
        assert Image.open(io.BytesIO(server.ask(told["picture"]).body)).size == (64, 40)
        assert page.get_by_text("Report of its training").get_attribute("href") == told["report"]


@pytest.fixture(scope="module")
def far(tmp_path_factory):
    """A model that is shown photos of 64 px and more by way of their halves."""
    path = tmp_path_factory.mktemp("far") / "far.safetensors"
    return write_model(path, kind="pyramid", levels=1, image={"size": 32, "resize": "short"})


@pytest.fixture(scope="module")
def host(far, tmp_path_factory):
    """`viceversa export --page`, on a plain file server."""
    kept = standalone.cache_folder() / standalone.RUNTIME
    if not kept.exists():
        try:
            standalone.runtime()
        except viceversa.BadInput as wrong:
            pytest.skip(f"onnxruntime-web cannot be fetched: {wrong}")
    folder = tmp_path_factory.mktemp("page") / "site"
    assert cli.main(["export", str(far), "--page", str(folder)]) == 0
    handler = functools.partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/"
        server.shutdown()


@pytest.mark.parametrize("side", [(99, 61), (131, 67), (203, 131)])  # as it is, halved once, and twice
def test_the_page_without_a_server_translates_as_the_command(browser, host, far, side):
    given = picture(*side)
    with visited(browser, host, 360, 740) as page:
        give(page, ("house.png", "image/png", given))
        shown(page)
        name, data = saved(page, "#download")
    wanted = viceversa.load(far, precision="fp32", device="cpu")(pixels(given), to="night").astype(int)
    assert name == "house.night.png" and np.abs(pixels(data)[..., :3] - wanted).max() <= 2


def test_the_page_without_a_server(browser, host):
    with visited(browser, host, 360, 740) as page:
        give(page, ("house.png", "image/png", picture()))
        shown(page)
        page.click("#back")
        page.wait_for_selector("#back[aria-pressed=true]")
        give(page, *[(f"{n}.png", "image/png", picture(seed=n)) for n in range(2)], ("a.txt", "text/plain", b"no"))
        page.wait_for_selector("#batch:not([hidden])")
        archive = zipfile.ZipFile(io.BytesIO(saved(page, "#batch-download")[1]))
        assert archive.testzip() is None and archive.namelist() == ["001-0.png", "002-1.png"]
        give(page, ("bad.png", "image/png", b"hello"))
        page.wait_for_selector("#error:not([hidden])")
        assert page.inner_text("#error") == "This is not a picture that this browser can read."


def test_the_page_is_not_written_over_anything(models, tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert cli.main(["export", str(models.first), "--page", str(tmp_path)]) == 2
    assert cli.main(["export", str(models.first), "--page", str(tmp_path / "notes.txt")]) == 2
    assert cli.main(["export", str(models.first), "--half", "--page", str(tmp_path / "site")]) == 2
    assert cli.main(["export", str(models.oneway), "--to", "day", "--page", str(tmp_path / "site")]) == 2
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
    assert capsys.readouterr().err.count("\n") == 4


def test_a_runtime_that_is_not_the_right_one(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setenv("VICEVERSA_CACHE", str(tmp_path))
    (tmp_path / standalone.RUNTIME).write_bytes(b"something else")
    assert cli.main(["export", str(models.first), "--page", str(tmp_path / "site")]) == 2
    assert "wrong checksum" in capsys.readouterr().err
    (tmp_path / standalone.RUNTIME).unlink()
    monkeypatch.setenv("PATH", str(tmp_path))  # without npm
    assert cli.main(["export", str(models.first), "--page", str(tmp_path / "site")]) == 2
    assert f"put {standalone.RUNTIME}" in capsys.readouterr().err
    assert json.dumps(sorted(path.name for path in tmp_path.iterdir())) == "[]"
