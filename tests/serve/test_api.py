"""The API as programs meet it: answers, refusals, jobs, limits, and what is left behind."""

import asyncio
import base64
import errno
import hashlib
import http.client
import io
import json
import os
import resource
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import zipfile
import zlib
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path
from tempfile import mkdtemp
from urllib.parse import urlsplit

import av
import numpy as np
import pytest
from patience import LONG
from PIL import Image
from serving import held, process, serving, until

import viceversa
from viceversa import cli
from viceversa.config import Serve
from viceversa.data.statistics import describe
from viceversa.model.file import save_model
from viceversa.serve import app, command
from viceversa.serve.guard import Guard
from viceversa.serve.guard import Request as Upload
from viceversa.serve.jobs import ENTRIES, KEPT_SECONDS, WAITING, Job, Jobs, look_at, own_folder
from viceversa.serve.queue import Queue, Work
from viceversa.serve.refusal import Refusal
from viceversa.serve.served import find

ROOT = Path(__file__).parents[2]


def picture(width=64, height=48, format="PNG", seed=0, **options):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)
    out = io.BytesIO()
    Image.fromarray(pixels).save(out, format, **options)
    return out.getvalue()


def animation(frames=3, format="GIF"):
    images = [Image.open(io.BytesIO(picture(32, 32, seed=n))) for n in range(frames)]
    out = io.BytesIO()
    images[0].save(out, format, save_all=True, append_images=images[1:], duration=100)
    return out.getvalue()


def film(path, frames=6, width=64, height=48):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for n in range(frames):
            frame = av.VideoFrame.from_ndarray(np.full((height, width, 3), 30 * n % 256, np.uint8))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return path.read_bytes()


def form(files, **fields):
    """body and headers of a multipart/form-data."""
    parts = [f'--edge\r\nContent-Disposition: form-data; name="{k}"\r\n\r\n{v}\r\n'.encode() for k, v in fields.items()]
    parts += [
        f'--edge\r\nContent-Disposition: form-data; name="files"; filename="{name}"\r\n\r\n'.encode() + data + b"\r\n"
        for name, data in files
    ]
    return b"".join(parts) + b"--edge--\r\n", {"Content_Type": "multipart/form-data; boundary=edge"}


def refused(answer, status):
    """A refusal is one sentence, and tells nothing of this machine."""
    assert answer.status == status, answer.body
    told = json.loads(answer.body)
    assert list(told) == ["error"]
    assert "Traceback" not in told["error"] and "/tmp" not in told["error"] and "\n" not in told["error"]
    return told["error"]


def address(server):
    return urlsplit(server.url).hostname, urlsplit(server.url).port


def connection(server):
    return http.client.HTTPConnection(urlsplit(server.url).netloc, timeout=LONG)


def test_a_picture_comes_back_as_the_command_writes_it(server, models, tmp_path):
    photo = tmp_path / "photo.jpg"
    exif = Image.Exif()
    exif[271] = "Camera"
    photo.write_bytes(picture(96, 64, "JPEG", exif=exif))
    assert cli.main(["translate", str(models.first), str(photo), "--to", "night", "-o", str(tmp_path / "out.jpg")]) == 0
    wanted = (tmp_path / "out.jpg").read_bytes()
    raw = server.ask("/v1/translate?to=night", photo.read_bytes(), Content_Type="image/jpeg")
    assert raw.status == 200 and raw.headers["Content-Type"] == "image/jpeg" and raw.body == wanted
    body, kind = form([("my photo.jpg", photo.read_bytes())], to="night")
    sent = server.ask("/v1/translate", body, **kind)
    assert sent.body == wanted
    assert sent.headers["Content-Disposition"] == "inline; filename*=UTF-8''my%20photo.night.jpg"


@pytest.mark.parametrize("format", ["png", "webp", "tiff", "bmp", "jpg"])
def test_format(server, format):
    answer = server.ask(f"/v1/translate?to=day&format={format}", picture(), Content_Type="image/png")
    with Image.open(io.BytesIO(answer.body)) as image:
        assert image.format == {"jpg": "JPEG"}.get(format, format.upper()) and image.size == (64, 48)


@pytest.mark.parametrize(("asked", "format"), [("JPG", "JPEG"), ("jpeg", "JPEG"), ("TIF", "TIFF")])
def test_a_format_by_another_of_its_endings(server, asked, format):
    body, kind = form([("a.png", picture())], to="night", format=asked)
    answer = server.ask("/v1/translate", body, **kind)
    assert Image.open(io.BytesIO(answer.body)).format == format
    job = server.finished(server.json("/v1/jobs", body, **kind))
    with zipfile.ZipFile(io.BytesIO(server.ask(job["result"]).body)) as made:
        assert Image.open(io.BytesIO(made.read(made.namelist()[0]))).format == format


def unlike_their_kind():
    """Pictures of which JPEG, or their reading, loses something."""
    deep, cut_out, inks = io.BytesIO(), io.BytesIO(), io.BytesIO()
    Image.fromarray(np.full((48, 64), 40_000, np.uint16)).save(deep, "PNG")
    Image.new("RGBA", (64, 48), (200, 100, 50, 128)).save(cut_out, "PNG")
    Image.new("CMYK", (64, 48), (10, 20, 30, 40)).save(inks, "JPEG")
    return {"g16.png": deep.getvalue(), "rgba.png": cut_out.getvalue(), "cmyk.jpg": inks.getvalue()}


def test_what_is_changed_or_left_out_is_told(server):
    files = unlike_their_kind()
    body, kind = form(list(files.items()), to="night", format="jpg")
    notes = server.finished(server.json("/v1/jobs", body, **kind))["notes"]
    lost = {
        "g16.png": "16 bits, rounded to the 8 of JPEG",
        "rgba.png": "transparency, which JPEG does not hold, left out",
    }
    assert {f"1 picture ({name}): {note}" for name, note in lost.items()} < set(notes)
    assert any(note.startswith("1 picture (cmyk.jpg): CMYK") for note in notes)
    for name, note in lost.items():
        answer = server.ask("/v1/translate?to=night&format=jpg", files[name], Content_Type="image/png")
        assert json.loads(answer.headers["Viceversa-Notes"]) == [note]
    as_it_was = server.ask("/v1/translate?to=night", files["rgba.png"], Content_Type="image/png")
    assert as_it_was.status == 200 and as_it_was.headers["Viceversa-Notes"] is None


def test_pictures_unlike_those_of_training_are_told(models, tmp_path):
    """Of domains whose names no header can hold, and in the words of requests."""
    model, shades = viceversa.load(models.first).model, {"day": 250, "soir\u00e9e": 5}
    known = {name: describe([np.full((64, 64, 3), shade, np.uint8)]) for name, shade in shades.items()}
    told = replace(model, domains=tuple(shades), info={**model.info, "statistics": known})
    save_model(tmp_path / "evening.safetensors", told)
    dark = io.BytesIO()
    Image.new("RGB", (64, 64), (5, 5, 5)).save(dark, "PNG")
    with serving(tmp_path / "evening.safetensors", tmp=tmp_path) as server:
        answer = server.ask("/v1/translate?to=soir%C3%A9e", dark.getvalue(), Content_Type="image/png")
        (note,) = json.loads(answer.headers["Viceversa-Notes"])
        assert note.startswith("unlike all 1 images of day") and note.endswith(
            "looks like soir\u00e9e already: to=day?"
        )
        job = server.json("/v1/jobs?to=soir%C3%A9e", dark.getvalue(), Content_Type="image/png")
        job = server.finished(job)
        assert job["notes"] == [f"1 picture (picture): {note}"]


def test_there_and_back_and_size(server, models):
    model, data = viceversa.load(models.first), picture()
    pixels = np.asarray(Image.open(io.BytesIO(data)))

    def answered(query):
        return np.asarray(Image.open(io.BytesIO(server.ask(query, data, Content_Type="image/png").body)))

    assert np.array_equal(answered("/v1/translate?to=night&back=true"), model(model(pixels, to="night"), to="day"))
    assert np.array_equal(answered("/v1/translate?to=night&size=32"), model(pixels, to="night", size=32))


def test_strength_of_a_picture_and_of_jobs(server, models, tmp_path):
    data, model = picture(), viceversa.load(models.first)
    pixels = np.asarray(Image.open(io.BytesIO(data)))
    half = model(pixels, to="night", strength=0.5)
    answer = server.ask("/v1/translate?to=night&strength=0.5", data, Content_Type="image/png")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(answer.body))), half)
    body, kind = form([("a.png", data), ("b.png", data)], to="night", strength="0.5")
    job = server.finished(json.loads(server.ask("/v1/jobs", body, **kind).body))
    with zipfile.ZipFile(io.BytesIO(server.ask(job["result"]).body)) as made:
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(made.read("a.png")))), half)
    still = server.json("/v1/jobs?to=night&strength=0", film(tmp_path / "walk.mp4"), Content_Type="video/mp4")
    with av.open(io.BytesIO(server.ask(server.finished(still)["result"]).body)) as made:
        shades = [frame.to_ndarray(format="gray").mean() for frame in made.decode(video=0)]
    assert np.abs(np.diff(shades) - 30).max() < 4  # as it was
    for path in ("/v1/translate", "/v1/jobs"):
        told = server.json("/openapi.json")["paths"][path]["post"]["parameters"]
        assert "strength" in [each["name"] for each in told]


def test_where_no_model_is_named_it_is_the_first_that_goes_there(models, tmp_path):
    model = viceversa.load(models.first).model
    save_model(tmp_path / "zebras.safetensors", replace(model, domains=("horse", "soir\u00e9e")))
    found = find(Serve(models=(str(models.oneway), str(models.first), str(tmp_path / "zebras.safetensors"))))
    wanted = {"night": "oneway", "day": "day2night", "horse": "zebras", "soire\u0301e": "zebras"}
    assert {to: app.Asked.read({"to": to}, found).served.name for to in wanted} == wanted
    assert app.Asked.read({}, found).served.name == "oneway"
    with pytest.raises(Refusal, match="to=hrose: did you mean horse"):
        app.Asked.read({"to": "hrose"}, found)
    with pytest.raises(Refusal, match="choose to=night or to=day or"):
        app.Asked.read({"to": "qqq"}, found)


def test_models_and_their_cards(server):
    told = server.json("/v1/models")["models"]
    assert [one["name"] for one in told] == ["day2night", "oneway", "gray"]
    assert told[0]["directions"] == [{"from": "day", "to": "night"}, {"from": "night", "to": "day"}]
    assert server.json(told[0]["card"]) == {"domains": ["day", "night"], "training": {"epochs": 3, "steps": 300}}
    assert Image.open(io.BytesIO(server.ask(told[2]["picture"]).body)).format == "WEBP"
    # One direction need not be named.
    assert server.ask("/v1/translate?model=oneway", picture(), Content_Type="image/png").status == 200


def test_a_run_shows_its_last_still_and_takes_names_as_they_are_seen(models, tmp_path):
    run = tmp_path / "run"
    (run / "progress").mkdir(parents=True)
    (run / "config.json").write_text("{}")
    model = viceversa.load(models.first).model
    save_model(run / "model.safetensors", replace(model, domains=("day", "soir\u00e9e")))
    for epoch in (2, 9999, 10000):
        Image.new("RGB", (8, 8)).save(run / "progress" / f"epoch_{epoch:04d}.webp")
    served = find(Serve(models=(str(run),)))["run"]
    assert served.still == run / "progress" / "epoch_10000.webp"
    assert served.target("soire\u0301e") == "soir\u00e9e"


def bomb():
    """A PNG that says it has 50,000 x 50,000 pixels, and is a few hundred bytes small."""
    head = picture(8, 8)
    chunk = b"IHDR" + (50_000).to_bytes(4, "big") * 2 + head[24:29]
    return head[:12] + chunk + zlib.crc32(chunk).to_bytes(4, "big") + head[33:]


REFUSED = {
    "not an image": ("?to=night", b"hello, world" * 9, "image/png", 415, "not a picture"),
    "empty": ("?to=night", b"", "image/png", 400, "empty"),
    "cut short": ("?to=night", picture()[:2000], "image/png", 400, "broken"),
    "animated": ("?to=night", animation(), "image/gif", 415, "/v1/jobs"),
    "pages": ("?to=night", animation(format="TIFF"), "image/tiff", 415, "pages and animated PNG are not taken"),
    "a film": ("?to=night", b"\0\0\0\x20ftypisom" + bytes(99), "video/mp4", 415, "/v1/jobs"),
    "32 bits": ("?to=night", "F", "image/tiff", 400, "32 bits"),
    "an icon": ("?to=night", "ICO", "image/png", 415, "not a picture"),
    "too many pixels": ("?to=night", picture(1200, 900, "JPEG"), "image/jpeg", 413, "1200x900"),
    "50,000 pixels wide": ("?to=night", bomb(), "image/png", 413, "megapixels"),
    "too large": ("?to=night", bytes(2_100_000), "image/png", 413, "2 MB"),
    "no such model": ("?model=day2nihgt&to=night", picture(), "image/png", 404, "did you mean day2night"),
    "no such direction": ("?to=nigth", picture(), "image/png", 422, "did you mean night"),
    "not this way": ("?model=oneway&to=day", picture(), "image/png", 422, "to=night"),
    "no direction": ("", picture(), "image/png", 422, "to=day or to=night"),
    "no way back": ("?model=oneway&to=night&back=true", picture(), "image/png", 422, "one direction"),
    "no such format": ("?to=night&format=jpgg", picture(), "image/png", 422, "did you mean jpg"),
    "no such parameter": ("?too=night", picture(), "image/png", 422, "did you mean to"),
    "too strong": ("?to=night&strength=1.5", picture(), "image/png", 422, "from 0 to 1"),
    "strength of words": ("?to=night&strength=half", picture(), "image/png", 422, "from 0 to 1"),
    "strength that is no number": ("?to=night&strength=nan", picture(), "image/png", 422, "from 0 to 1"),
    "size 0": ("?to=night&size=0", picture(), "image/png", 422, "16 to 8192"),
    "size with noughts": ("?to=night&size=0000169999999", picture(), "image/png", 422, "16 to 8192"),
    "a size that makes too many": ("?to=night&size=8192", picture(1600, 16), "image/png", 413, "6,711 million at size"),
    "size of words": ("?to=night&size=½", picture(), "image/png", 422, "16 to 8192"),
    "wrong content type": ("?to=night", b"{}", "application/json", 415, "curl -F"),
    "as curl sends bare data": ("?to=night", picture(), "application/x-www-form-urlencoded", 415,
                                "curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg"),
    "a form without its edge": ("?to=night", picture(), "multipart/form-data", 400, "boundary"),
    "a form without a file": ("?to=night", b'--e\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n--e--\r\n',
                              "multipart/form-data; boundary=e", 400, "curl -F"),
    "a form that breaks off": ("?to=night", form([("a.png", picture())])[0][:2000],
                               "multipart/form-data; boundary=edge", 400, "breaks off"),
    "given twice": ("?to=night&to=day", picture(), "image/png", 422, "'to' is given twice, and they differ"),
    "9,000 letters": (f"?to={9000 * 'x'}", picture(), "image/png", 422, "x: choose to=night or to=day"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_refused(server, case):
    query, data, kind, status, words = REFUSED[case]
    if data in ("F", "ICO"):
        out = io.BytesIO()
        Image.new("F" if data == "F" else "RGB", (32, 32)).save(out, {"F": "TIFF"}.get(data, data))
        data = out.getvalue()
    answer = server.ask(f"/v1/translate{query.replace('½', '%C2%BD')}", data, Content_Type=kind)
    assert words in refused(answer, status)


def test_two_pictures_are_a_job(server):
    body, kind = form([("a.png", picture()), ("b.png", picture())])
    assert "/v1/jobs" in refused(server.ask("/v1/translate?to=night", body, **kind), 400)


def test_what_is_said_twice_must_agree(server):
    body, kind = form([("a.png", picture())], to="night")
    assert "they differ" in refused(server.ask("/v1/translate?to=day", body, **kind), 422)
    assert server.ask("/v1/translate?to=night&to=night", body, **kind).status == 200
    twice, _ = form([], to="day")
    assert "they differ" in refused(
        server.ask("/v1/translate", twice.removesuffix(b"--edge--\r\n") + body, **kind), 422
    )


def test_a_form_that_breaks_off_is_not_half_done(server):
    """Also not where the pictures ahead of that are whole."""
    body, kind = form([("a.png", picture()), ("b.png", picture(seed=1))], to="night")
    assert "breaks off" in refused(server.ask("/v1/jobs", body[:-3000], **kind), 400)


def test_no_sentence_repeats_all_of_what_was_sent(server):
    long = 9000 * "x"
    data = {"data": picture(), "Content_Type": "image/png"}
    for query in (f"to={long}", f"{long}=1", f"to=night&format={long}", f"model={long}", f"to=night&size={long}"):
        assert len(refused(server.ask(f"/v1/translate?{query}", **data), 404 if "model" in query else 422)) < 500
    assert len(refused(server.ask("/v1/models", Origin=f"https://{long}"), 403)) < 500
    assert len(refused(server.ask("/v1/jobs", method=long), 405)) < 500


def test_too_large_without_a_length(server):
    """Chunked: what comes is counted."""
    asked = connection(server)
    asked.request("POST", "/v1/translate?to=night", iter([bytes(1 << 20)] * 4), {"Content-Type": "image/png"})
    answer = asked.getresponse()
    assert answer.status == 413 and b"2 MB" in answer.read()


def test_nothing_else_is_there(server):
    for path in ("/v1/../../etc/passwd", "/samples/..%2f..%2fetc%2fpasswd", "/page/index.html", "/docs",
                 "/v1/models/x/card", "/v1/models/..%2f..%2f/report", "/v1/jobs/..%2fx/result",
                 "/v1/models/day2night/report", "/v1/models/day2night/films/night"):  # fmt: skip
        refused(server.ask(path), 404)
    refused(server.ask("/v1/translate"), 405)
    wrong = server.ask("/v1/jobs/none", method="PUT")
    assert refused(wrong, 405) and wrong.headers["Allow"] == "DELETE, GET"
    refused(server.ask("/v1/jobs/none", method="DELETE"), 404)


def test_monitors_may_ask_for_the_head_alone(server):
    job = server.finished(server.json("/v1/jobs?to=night", animation(), Content_Type="image/gif"))
    for path in ("/", "/page.js", "/healthz", "/readyz", job["result"]):
        head = server.ask(path, method="HEAD")
        assert head.status == 200 and head.body == b""
        assert head.headers["Content-Length"] == server.ask(path).headers["Content-Length"] != "0"
    assert "head" not in json.dumps(server.json("/openapi.json")["paths"]["/healthz"])


def test_a_result_of_which_the_head_was_asked_for_is_not_fetched(server):
    job = server.finished(server.json("/v1/jobs?to=night", animation(), Content_Type="image/gif"))
    kept = server.inner.jobs.named(job["id"])
    assert server.ask(job["result"], method="HEAD").status == 200 and not kept.fetched
    assert server.ask(job["result"]).status == 200 and kept.fetched


def test_headers_that_browsers_heed(server):
    for path in ("/", "/page.js", "/v1/models", "/nothing"):
        headers = server.ask(path).headers
        assert headers["Content-Security-Policy"].startswith("default-src 'none'; script-src 'self'")
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert headers["X-Content-Type-Options"] == "nosniff" and headers["Referrer-Policy"] == "no-referrer"


def test_other_sites_may_not_call(server, models, tmp_path):
    told = refused(server.ask("/v1/models", Origin="https://elsewhere.example"), 403)
    assert told.endswith("--allow-origin https://elsewhere.example")
    told = refused(server.ask("/v1/models", Origin="null"), 403)
    assert "a page opened from a file" in told and "--allow-origin null" not in told
    refused(server.ask("/v1/models", Host="rebound.example"), 403)  # a name that was made to mean this machine
    assert server.ask("/v1/models", Origin=server.url).status == 200
    with serving(models.first, tmp=tmp_path, allow_origin=("https://photos.example",), auth="me:secret") as other:
        site = {"Origin": "https://photos.example"}
        asked = other.ask("/v1/translate", method="OPTIONS", Access_Control_Request_Method="POST", **site)
        assert asked.status == 204 and asked.headers["Access-Control-Allow-Origin"] == "https://photos.example"
        login = {"Authorization": "Basic " + base64.b64encode(b"me:secret").decode()}
        assert other.ask("/v1/models", **site, **login).headers["Access-Control-Allow-Origin"] == site["Origin"]
        refused(other.ask("/v1/models", Origin="https://elsewhere.example", **login), 403)
        # credentials are wanted for all but /healthz
        assert other.ask("/healthz").status == 200
        for path in ("/", "/v1/models", "/readyz", "/metrics", "/openapi.json"):
            answer = other.ask(path)
            refused(answer, 401)
            assert answer.headers["WWW-Authenticate"].startswith("Basic")
        for wrong in (b"me:secre", b"me:secret ", b"you:secret", b":", b"\xff"):
            assert other.ask("/", Authorization="Basic " + base64.b64encode(wrong).decode()).status == 401
        assert other.ask("/", Authorization="Basic §").status == 401
        assert other.ask("/", **login).status == 200


def test_a_film(server, tmp_path):
    data = film(tmp_path / "walk.mp4")
    body, kind = form([("walk.mp4", data)])
    begun = server.ask("/v1/jobs?to=night", body, **kind)
    assert begun.status == 202
    job = json.loads(begun.body)
    assert begun.headers["Location"] == f"/v1/jobs/{job['id']}"
    job = server.finished(job)
    assert (job["state"], job["done"], job["name"]) == ("done", 6, "walk.night.mp4"), job
    answer = server.ask(job["result"])
    assert answer.headers["Content-Type"] == "video/mp4"
    with av.open(io.BytesIO(answer.body)) as container:
        assert len(list(container.decode(video=0))) == 6
    assert server.ask(job["result"], Range="bytes=0-9").body == answer.body[:10]
    server.ask(f"/v1/jobs/{job['id']}", method="DELETE")
    refused(server.ask(f"/v1/jobs/{job['id']}"), 404)


def test_several_pictures_and_an_archive(server, models):
    model = viceversa.load(models.first)
    hostile = [("../../up.png", picture(seed=1)), ("in/a folder/two.jpg", picture(40, 40, "JPEG", seed=2)),
               ("notes.txt", b"no picture"), ("cut.png", picture()[:500]), ("C:\\x\\three.png", picture(seed=3)),
               ("large.png", picture(1200, 900))]  # fmt: skip
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w") as packed:
        for name, data in hostile:
            packed.writestr(name, data)
        packed.writestr("__MACOSX/._up.png", b"left out")
        packed.writestr(".hidden/a.png", picture())
    zipped = server.ask("/v1/jobs?to=night&format=png", archive.getvalue(), Content_Type="application/zip")
    body, kind = form(hostile, to="night", format="png")
    sent = server.ask("/v1/jobs", body, **kind)
    for begun in (zipped, sent):
        job = server.finished(json.loads(begun.body))
        assert job["state"] == "done", job["error"]
        assert len(job["failed"]) == 3
        assert job["notes"] == (["2 hidden files of the archive left out"] if begun is zipped else [])
        assert {line.split(":")[0] for line in job["failed"]} == {"notes.txt", "cut.png", "large.png"}
        with zipfile.ZipFile(io.BytesIO(server.ask(job["result"]).body)) as made:
            names = made.namelist()
            assert not any(".." in name or name.startswith("/") or ":" in name for name in names)
            assert [Path(name).name for name in names] == ["up.png", "two.png", "three.png", "failed.txt"]
            pixels = np.asarray(Image.open(io.BytesIO(made.read(names[0]))))
        assert np.array_equal(pixels, model(np.asarray(Image.open(io.BytesIO(hostile[0][1]))), to="night"))


def test_an_animation(server):
    job = server.json("/v1/jobs?to=night&format=png", animation(), Content_Type="image/gif")
    job = server.finished(job)
    assert job["state"] == "done", job
    assert job["notes"] == ["format=png is for pictures, and not heeded for a film or an animation"]
    with Image.open(io.BytesIO(server.ask(job["result"]).body)) as image:
        assert image.format == "GIF" and image.n_frames == 3


def test_a_film_that_its_size_makes_too_large(server, tmp_path):
    begun = server.json("/v1/jobs?to=night&size=8192", film(tmp_path / "walk.mp4"), Content_Type="video/mp4")
    job = server.finished(begun)
    assert job["state"] == "failed" and "larger than 1 megapixels a frame at size=8192" in job["error"]


def test_names_of_results(server, tmp_path):
    """What has no ending gets one, what is long is cut before it, and what is called alike is numbered."""
    alone = server.json("/v1/jobs?to=night", picture(format="JPEG"), Content_Type="image/jpeg")
    body, kind = form([(f"{'long ' * 30}.jpg", picture(format="JPEG")), ("a.jpg", picture()), ("b.1", picture()),
                       ("a.png", picture(seed=1))])  # fmt: skip
    several = server.json("/v1/jobs?to=night", body, **kind)
    names = []
    for begun in (alone, several):
        job = server.finished(begun)
        assert job["state"] == "done" and job["failed"] == []
        names += zipfile.ZipFile(io.BytesIO(server.ask(job["result"]).body)).namelist()
    assert names == ["picture.jpg", f"{('long ' * 30)[:146].strip()}.jpg", "a.png", "b.1.png", "a-2.png"]
    body, kind = form([("夜" * 90 + ".mp4", film(tmp_path / "walk.mp4"))])
    job = server.finished(server.json("/v1/jobs?to=night", body, **kind))
    assert job["state"] == "done" and job["name"] == "夜" * 48 + ".night.mp4", job
    assert server.ask(job["result"]).status == 200


@pytest.fixture
def jobs(models, tmp_path):
    """Without a server."""
    translator = viceversa.load(models.first)
    queue = Queue([translator])
    jobs = Jobs(tmp_path, queue, 1e6, 1)
    jobs.served = find(Serve(models=(str(models.first),)))["day2night"]
    yield jobs
    jobs.close()
    queue.close()


def begun(jobs, data, to="night", **fields):
    job = Job(Path(mkdtemp(dir=jobs.folder)), jobs.served, to, [], **fields)
    (job.folder / "in").mkdir()
    job.files.append(("file", job.folder / "in" / "0000"))
    job.files[0][1].write_bytes(data)
    jobs.all[job.id] = job
    return job


def test_no_name_of_a_domain_reaches_the_file_system(jobs, tmp_path):
    domain = str(tmp_path / "evil")
    model = replace(jobs.served.translator.model, domains=("day", domain))
    jobs.served = replace(jobs.served, translator=viceversa.Translator(model))
    job = begun(jobs, picture(), domain)
    jobs.run(job)
    assert job.state == "done" and job.result.parent == job.folder / "out", job.error
    assert job.name == f"{domain}.zip" and not (tmp_path / "evil.zip").exists()


def test_results_that_are_kept_lock_nobody_out(jobs):
    done = [begun(jobs, b"") for _ in range(64)]
    for number, job in enumerate(done):
        job.state, job.ended, job.fetched = "done", time.monotonic() - number, number in (5, 9)
    jobs.check_room()
    assert set(done) - set(jobs.all.values()) == {done[9]} and not done[9].folder.exists()
    jobs.all["new"] = begun(jobs, b"")
    jobs.check_room()
    assert done[5] not in jobs.all.values() and done[63] not in jobs.all.values() and done[62] in jobs.all.values()


def test_no_more_jobs_than_may_wait(jobs):
    for _ in range(WAITING - 1):
        begun(jobs, b"")
    jobs.check_room()
    begun(jobs, b"")
    with pytest.raises(Refusal, match="too many jobs are waiting"):
        jobs.check_room()


def test_results_are_kept_for_an_hour(jobs):
    old, new = begun(jobs, b""), begun(jobs, b"")
    for job, past in ((old, KEPT_SECONDS + 1), (new, 1)):
        job.state, job.ended = "done", time.monotonic() - past
    assert jobs.named(new.id) is new and new.folder.exists() and not old.folder.exists()
    with pytest.raises(Refusal, match="gone an hour after"):
        jobs.named(old.id)


def test_no_jobs_without_room_on_the_disk(jobs):
    jobs.largest = shutil.disk_usage(jobs.folder).total
    with pytest.raises(Refusal, match="nearly full"):
        jobs.check_room()


def test_a_disk_that_is_full_while_a_job_runs(jobs, monkeypatch, capsys):
    def full(job):
        raise OSError(errno.ENOSPC, "No space left on device", str(job.folder))

    monkeypatch.setattr(jobs, "translate", full)
    job = begun(jobs, picture())
    jobs.run(job)
    assert job.error.startswith("the server's disk is full") and "No space left" in capsys.readouterr().err


def test_a_job_that_is_cancelled_after_its_last_image_goes_with_its_files(jobs, monkeypatch):
    job = begun(jobs, picture())
    translate = jobs.translate
    monkeypatch.setattr(jobs, "translate", lambda job: (translate(job), jobs.cancel(job)))
    jobs.run(job)
    assert not job.folder.exists()


def test_pages_are_not_counted(monkeypatch):
    """Pillow takes a time for it that grows with their square."""
    monkeypatch.setattr("PIL.TiffImagePlugin.TiffImageFile.n_frames", property(lambda image: 1 / 0))
    with pytest.raises(Refusal, match="several pictures"):
        look_at(animation(format="TIFF"), 1)


@pytest.mark.parametrize("look", ["kind_of", "look_at"])
def test_who_looks_at_a_file_keeps_nobody_waiting(server, monkeypatch, look):
    entered, answered, own = threading.Event(), threading.Event(), getattr(app, look)

    def slow(*given):
        entered.set()
        assert answered.wait(LONG)
        return own(*given)

    monkeypatch.setattr(app, look, slow)
    with ThreadPoolExecutor(1) as other:
        asked = other.submit(server.ask, "/v1/translate?to=night", picture(), Content_Type="image/png")
        assert entered.wait(LONG)
        assert server.json("/healthz") == {"status": "ok"}
        answered.set()
        assert asked.result().status == 200


def test_uploads_of_films_leave_room_for_pictures():
    guard = Guard(None, Serve(megabytes=0.001), lambda *told: None)

    def sent(path, count):
        async def receive():
            return {"type": "http.request", "body": bytes(count), "more_body": True}

        scope = {"path": path, "headers": [(b"content-length", b"8000")]}
        return asyncio.run(Upload(guard, scope, receive, None).receive())

    for _ in range(3):
        sent("/v1/jobs", 7000)
    for _ in range(16):
        sent("/v1/translate", 1000)
    with pytest.raises(Refusal, match="too many uploads"):
        sent("/v1/translate", 1000)


@pytest.mark.parametrize("header", [{"Host": "["}, {"Origin": "http://["}])
def test_addresses_that_are_none(server, header):
    refused(server.ask("/v1/models", **header), 400)


def archive_of(files):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, data in files:
            packed.writestr(name, data)
    return out.getvalue()


def many_pixels():
    """An animation that says it has 700 x 700 pixels, 1,000 times."""
    out = io.BytesIO()
    frames = [Image.new("P", (700, 700), n % 2) for n in range(1000)]
    frames[0].save(out, "GIF", save_all=True, append_images=frames[1:])
    return out.getvalue()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (archive_of((f"{n}.bmp", bytes(1_000_000)) for n in range(20)), "unpacked"),
        (archive_of((f"{n}.bmp", b"") for n in range(ENTRIES + 1)), "holds 1001 files: send at most 1000"),
        (archive_of([(".hidden.png", b"")]), "no files but hidden ones"),
        (many_pixels(), "holds 1000 frames of 0.5 megapixels"),
        (b"PK\x03\x04" + bytes(200), "cannot be unpacked"),
        (b"\0\0\0\x20ftypisom" + bytes(400), "film"),
        (picture()[:300], "broken"),
    ],
)
def test_a_job_that_fails(server, data, words):
    job = server.finished(server.json("/v1/jobs?to=night", data, Content_Type="application/octet-stream"))
    assert job["state"] == "failed" and words in job["error"] and str(server.tmp) not in job["error"]
    refused(server.ask(f"/v1/jobs/{job['id']}/result"), 409)


def test_a_playlist_opens_nothing(server):
    """FFmpeg would read other files for it, whatever it is called."""
    playlist = b"#EXTM3U\n#EXT-X-TARGETDURATION:9\n#EXTINF:9,\nfile:///etc/hostname\n#EXT-X-ENDLIST\n"
    for data in (playlist, b"ffconcat version 1.0\nfile '/etc/hostname'\n"):
        body, kind = form([("film.mp4", data)])
        refused(server.ask("/v1/jobs?to=night", body, **kind), 415)


def test_a_cancelled_job_goes_with_its_files(server, tmp_path):
    before = set(server.tmp.rglob("*"))
    job = server.json("/v1/jobs?to=night", film(tmp_path / "long.mp4", 300, 320, 240), Content_Type="video/mp4")
    until(lambda: server.json(f"/v1/jobs/{job['id']}")["done"] > 1)
    assert server.json(f"/v1/jobs/{job['id']}", method="DELETE")["state"] == "cancelled"
    refused(server.ask(f"/v1/jobs/{job['id']}"), 404)
    # The next one only begins when the cancelled one has ended.
    after = server.finished(server.json("/v1/jobs?to=night", animation(), Content_Type="image/gif"))
    server.ask(f"/v1/jobs/{after['id']}", method="DELETE")
    assert set(server.tmp.rglob("*")) <= before


def test_health_and_metrics(server):
    assert server.json("/healthz") == {"status": "ok"} and server.json("/readyz") == {"status": "ok"}
    server.ask("/v1/translate?to=night", picture(), Content_Type="image/png")
    told = server.ask("/metrics").body.decode()
    assert 'viceversa_requests_total{route="/v1/translate",status="200"}' in told
    assert "viceversa_pictures_inside 0.0" in told


def test_the_description_matches(server):
    """What schemathesis goes by; benchmarks/serve.py runs it."""
    told = server.json("/openapi.json")
    assert set(told["paths"]) == {
        "/v1/translate", "/v1/jobs", "/v1/jobs/{id}", "/v1/jobs/{id}/result", "/v1/models", "/v1/models/{name}/card",
        "/v1/models/{name}/picture", "/v1/models/{name}/report", "/v1/models/{name}/films/{to}", "/healthz", "/readyz",
        "/metrics",
    }  # fmt: skip
    upload = told["paths"]["/v1/translate"]["post"]
    assert {one["name"] for one in upload["parameters"]} == {
        "model", "to", "format", "size", "strength", "back"
    }  # fmt: skip
    assert {"multipart/form-data", "image/jpeg"} <= set(upload["requestBody"]["content"])


def test_a_full_house_says_when_to_come_back(models, tmp_path):
    """Many at once, places for two: every answer is right, or 503 with Retry-After."""
    with serving(models.first, tmp=tmp_path, queue=2) as server:
        data = picture()
        wanted = server.ask("/v1/translate?to=night", data, Content_Type="image/png").body
        with ThreadPoolExecutor(12) as crowd:

            def many():
                return [
                    crowd.submit(server.ask, "/v1/translate?to=night", data, Content_Type="image/png")
                    for _ in range(48)
                ]

            with held(server) as release:
                first = many()
                until(lambda: sum(asked.done() for asked in first) == 46)
                release()
                answers = [asked.result() for asked in first]
            assert Counter(answer.status for answer in answers) == {503: 46, 200: 2}
            answers += [asked.result() for asked in many()]
        for answer in answers:
            if answer.status == 200:
                assert answer.body == wanted
            else:
                assert int(answer.headers["Retry-After"]) >= 1 and "later" in refused(answer, 503)


def answered(server):
    """Requests for pictures that are over."""
    lines = server.ask("/metrics").body.decode().splitlines()
    return sum(float(line.split()[-1]) for line in lines if 'requests_total{route="/v1/translate"' in line)


def test_who_leaves_frees_the_place(models, tmp_path):
    with serving(models.first, tmp=tmp_path, queue=4) as server:
        data = picture()
        with held(server):  # until all have left
            for _ in range(12):  # thrice as many as there are places
                asked = connection(server)
                asked.request("POST", "/v1/translate?to=night", data, {"Content-Type": "image/png"})
                asked.sock.shutdown(socket.SHUT_RDWR)
                asked.close()
            until(lambda: answered(server) == 12)
            assert b"viceversa_pictures_inside 0.0" in server.ask("/metrics").body
        assert server.ask("/v1/translate?to=night", picture(), Content_Type="image/png").status == 200


def test_a_picture_that_takes_too_long(models, tmp_path):
    with serving(models.first, tmp=tmp_path, seconds=0.01) as server, held(server):
        answer = server.ask("/v1/translate?to=night", picture(), Content_Type="image/png")
        assert "longer than 0.01 seconds" in refused(answer, 504)
        assert answer.headers["Retry-After"] is None  # it would take as long again


def test_too_large_for_the_memory(models, tmp_path):
    with serving(models.first, tmp=tmp_path, memory="170MB") as server:
        answer = server.ask("/v1/translate?to=night", picture(1600, 1200, "JPEG"), Content_Type="image/jpeg")
        assert "too large for this server" in refused(answer, 507)
        body, kind = form([("large.jpg", picture(1600, 1200, "JPEG")), ("small.png", picture())])
        job = server.finished(server.json("/v1/jobs?to=night", body, **kind))
        assert job["state"] == "done" and job["failed"][0].startswith("large.jpg: too large for this server")
        assert server.ask("/v1/translate?to=night", picture(), Content_Type="image/png").status == 200


def test_idle_and_slow_clients_are_in_nobodys_way(server):
    idle = [socket.create_connection(address(server)) for _ in range(200)]
    for slow in idle[:100]:
        slow.sendall(b"POST /v1/translate?to=night HTTP/1.1\r\nHost: 127.0.0.1\r\nContent-Length: 1000000\r\n\r\n\x89P")
    assert server.ask("/v1/translate?to=night", picture(), Content_Type="image/png").status == 200
    assert b"viceversa_pictures_inside 0.0" in server.ask("/metrics").body
    for one in idle:
        one.close()


@pytest.fixture
def hold(tmp_path):
    """A file that is there while nothing goes through the network of a process."""
    path = tmp_path.with_name(f"{tmp_path.name}-hold")
    path.touch()
    yield path
    path.unlink(missing_ok=True)


def test_sigterm_answers_what_was_accepted(models, tmp_path, hold):
    hold.unlink()
    with process(models.first, "--host", "0.0.0.0", tmp=tmp_path, hold=hold) as server:
        data = picture(400, 300, "JPEG")
        wanted = hashlib.sha256(server.ask("/v1/translate?to=night", data, Content_Type="image/jpeg").body).digest()
        hold.touch()
        kept = connection(server)  # a connection that stays
        kept.request("GET", "/healthz")
        kept.getresponse().read()
        asked = [connection(server) for _ in range(6)]
        for one in asked:
            one.request("POST", "/v1/translate?to=night", data, {"Content-Type": "image/jpeg"})
        until(lambda: b"viceversa_pictures_inside 6.0" in server.ask("/metrics").body)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.json("/healthz")["status"] == "stopping")
        new = server.ask("/v1/models")
        assert "stopping" in refused(new, 503) and new.headers["Retry-After"]
        kept.request("GET", "/v1/models")
        assert kept.getresponse().status == 503
        hold.unlink()
        answers = [one.getresponse() for one in asked]
        assert [answer.status for answer in answers] == [200] * 6
        assert {hashlib.sha256(answer.read()).digest() for answer in answers} == {wanted}
        _, said = server.process.communicate(timeout=LONG)
        assert server.process.returncode == 0 and "all that was begun is done" in said and "Traceback" not in said
        assert "note: 0.0.0.0 can be reached from other machines" in said and "--auth USER:PASSWORD" in said
    assert not list(tmp_path.iterdir())


def uploading(server, data):
    """A job whose upload is under way, but for its last byte."""
    asked = connection(server)
    asked.putrequest("POST", "/v1/jobs?to=night")
    asked.putheader("Content-Type", "video/mp4")
    asked.putheader("Content-Length", str(len(data)))
    asked.endheaders(data[:-1])
    return asked


def test_sigterm_waits_for_a_job_whose_upload_still_comes(models, tmp_path):
    with process(models.first, tmp=tmp_path) as server:
        data = film(tmp_path.parent / "late.mp4")
        asked = uploading(server, data)
        server.ask("/metrics")  # when this is answered, the head of the upload has been read
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.json("/healthz")["status"] == "stopping")
        asked.send(data[-1:])
        job = server.finished(json.loads(asked.getresponse().read()))
        assert job["state"] == "done" and server.ask(job["result"]).status == 200
        _, said = server.process.communicate(timeout=LONG)
        assert server.process.returncode == 0 and "all that was begun is done" in said


def test_a_second_signal_ends_all_jobs_at_their_next_image(models, tmp_path, hold):
    data = film(tmp_path.parent / "endless.mp4", 300)
    with process(models.first, tmp=tmp_path, hold=hold) as server:
        job = server.json("/v1/jobs?to=night", data, Content_Type="video/mp4")
        until(lambda: server.json(f"/v1/jobs/{job['id']}")["state"] == "running")
        asked = connection(server)
        asked.request("POST", "/v1/translate?to=night", picture(), {"Content-Type": "image/png"})
        until(lambda: b"viceversa_pictures_inside 1.0" in server.ask("/metrics").body)
        server.process.send_signal(signal.SIGTERM)
        until(lambda: server.json("/healthz")["status"] == "stopping")
        server.process.send_signal(signal.SIGTERM)
        answer = asked.getresponse()
        assert answer.status == 503 and b"the server has stopped" in answer.read()
        hold.unlink()
        _, said = server.process.communicate(timeout=LONG)
        assert server.process.returncode == 143 and "2 requests or jobs were not finished" in said, said
        assert " and 1 job are finished first" in said
        assert "Traceback" not in said
    assert not list(tmp_path.iterdir())


def test_a_job_may_be_let_go_of_while_the_server_stops(models, tmp_path):
    with serving(models.first, tmp=tmp_path) as server, held(server):
        job = server.json("/v1/jobs?to=night", animation(), Content_Type="image/gif")
        server.inner.handle_exit(signal.SIGTERM, None)
        until(lambda: server.json("/healthz")["status"] == "stopping")
        assert "stopping" in refused(server.ask("/v1/jobs?to=night", animation(), Content_Type="image/gif"), 503)
        assert server.json(f"/v1/jobs/{job['id']}", method="DELETE")["state"] == "cancelled"


def test_a_body_that_comes_too_slowly(models, tmp_path, monkeypatch):
    monkeypatch.setattr("viceversa.serve.guard.UPLOAD_SECONDS", 0.05)
    with serving(models.first, tmp=tmp_path) as server:
        asked = uploading(server, picture())
        answer = asked.getresponse()
        assert answer.status == 408 and b"did not arrive within 0.05 seconds" in answer.read()
        asked.close()


def test_a_head_that_comes_too_slowly(models, tmp_path, monkeypatch):
    monkeypatch.setattr("viceversa.serve.server.HEAD_SECONDS", 0.05)
    with serving(models.first, tmp=tmp_path) as server, socket.create_connection(address(server), LONG) as slow:
        slow.sendall(b"GET /healthz HTTP/1.1\r\n")
        assert slow.recv(100) == b""


def test_who_does_not_read_an_answer_is_let_go(models, tmp_path, monkeypatch):
    listen = command.listen

    def with_little_room(*given):
        listener = listen(*given)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 14)
        return listener

    monkeypatch.setattr(command, "listen", with_little_room)
    monkeypatch.setattr("viceversa.serve.server.UPLOAD_SECONDS", 0.0)
    with serving(models.first, tmp=tmp_path) as server:
        asked = connection(server)
        asked.sock = socket.socket()
        asked.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 14)
        asked.sock.connect(address(server))
        asked.request("POST", "/v1/translate?to=night&format=bmp", picture(600, 400), {"Content-Type": "image/png"})
        until(lambda: answered(server) == 1)
        with pytest.raises((http.client.IncompleteRead, ConnectionError)):  # what the system's buffers held comes yet
            asked.getresponse().read()


def test_too_many_requests_at_a_time(server, monkeypatch):
    monkeypatch.setattr("viceversa.serve.guard.MOST", 0)
    answer = server.ask("/v1/models")
    assert "too many requests" in refused(answer, 503) and answer.headers["Retry-After"]


def test_a_disk_that_is_full_while_a_body_comes(server, capfd):
    body, kind = form([("large.png", bytes(1_500_000))], to="night")
    limit = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1_200_000, limit[1]))
    try:
        raw = server.ask("/v1/translate?to=night", bytes(1_500_000), Content_Type="image/png")
        answers = [raw, server.ask("/v1/translate", body, **kind), server.ask("/v1/jobs", body, **kind)]
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limit)
    for answer in answers:
        assert "disk is full" in refused(answer, 507)
    assert "Traceback" not in capfd.readouterr().err


def test_addresses_of_this_machine_alone(capsys):
    guard = Guard(None, Serve(host="127.0.0.2"), lambda *told: None)
    for host in ("127.0.0.2:7860", "127.0.0.1", "localhost", "[::1]:7860"):
        guard.check_site({"host": host})
    with pytest.raises(Refusal, match="does not answer to the name 'rebound"):
        guard.check_site({"host": "rebound.example"})
    for host, told in (("127.0.0.2", False), ("::1", False), ("0.0.0.0", True), ("photos.example", True)):
        command.tell(Serve(host=host), {}, "http://127.0.0.2:7860")
        assert ("can be reached from other machines" in capsys.readouterr().err) == told


def test_what_a_killed_server_left_is_removed_at_the_next_start(models, tmp_path, monkeypatch):
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))
    with process(models.first, tmp=tmp_path) as server:
        server.json("/v1/jobs?to=night", film(tmp_path.parent / "left.mp4", 300, 320, 240), Content_Type="video/mp4")
        (left,) = tmp_path.iterdir()
        with own_folder():
            pass
        assert left.exists()  # of one that lives
        server.process.kill()
        server.process.communicate()
        assert left.exists()
        with own_folder():
            pass
        assert not left.exists()


def test_does_not_start(models, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("viceversa.serve.served.bundled", list)
    (tmp_path / "cut.safetensors").write_bytes(models.first.read_bytes()[:1000])
    carded = Path(shutil.copy(models.first, tmp_path / "carded.safetensors"))
    carded.with_suffix(".json").write_text("[1]")
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = str(taken.getsockname()[1])
        for arguments, words in (
            ([str(models.first), "--port", port], f"port {port} of 127.0.0.1: address already in use: stop what"),
            ([str(models.first), "--port", "99999"], "65,535"),
            ([str(models.first), "--port", "0", "--host", "192.0.2.1"], "it is no address of this machine"),
            ([str(models.first), "--port", "0", "--auth", "me"], "USER:PASSWORD"),
            ([str(models.first), "--port", "0", "--allow-origin", "photos.example"], "https://"),
            ([str(models.first), "--port", "0", "--allow-origin", "https://[bad"], "scheme and host alone"),
            ([str(models.first), "--port", "0", "--allow-origin", "https://photos.example/app"], "scheme and host"),
            ([str(models.first), "--port", "0", "--allow-origin", "https://photos.example:443"], "scheme and host"),
            ([str(models.first), "--port", "0", "--queue", "0"], "--queue"),
            ([str(tmp_path / "cut.safetensors"), "--port", "0"], "is no model"),
            ([str(carded), "--port", "0"], "card is no JSON object"),
            (["nosuch", "--port", "0"], "no model 'nosuch'"),
            (["--port", "0"], "no models come with this installation"),
        ):
            assert cli.main(["serve", *arguments]) == 2
            said = capsys.readouterr().err
            assert words in said and said.count("\n") == 1


def test_a_port_that_is_for_others(monkeypatch):
    def create_server(*given, **how):
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("socket.create_server", create_server)
    with pytest.raises(viceversa.BadInput, match=r"port 443 of .*: permission denied: give a --port above 1023$"):
        command.listen("127.0.0.1", 443)


def test_the_client_of_the_examples(server, tmp_path):
    (tmp_path / "photo.png").write_bytes(picture())
    (tmp_path / "two.png").write_bytes(picture(seed=1))

    def client(*arguments):
        command = [sys.executable, str(ROOT / "examples" / "client.py"), "--server", server.url, *arguments]
        return subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert "day2night: day -> night, night -> day" in client("--models").stdout
    assert client("photo.png", "--to", "night").stdout == "photo.night.png\n"
    wanted = server.ask("/v1/translate?to=night", picture(), Content_Type="image/png").body
    assert (tmp_path / "photo.night.png").read_bytes() == wanted
    assert client("photo.png", "two.png", "--to", "night", "-o", "night.zip").stdout == "night.zip\n"
    assert zipfile.ZipFile(tmp_path / "night.zip").namelist() == ["photo.png", "two.png"]
    assert "422: to=nigth: did you mean night?" in client("photo.png", "--to", "nigth").stderr
    (tmp_path / "Größe 1.png").write_bytes(picture())
    client("Größe 1.png", "two.png", "--to", "night", "-o", "night.zip")
    assert zipfile.ZipFile(tmp_path / "night.zip").namelist() == ["Größe 1.png", "two.png"]


def curl_lines():
    lines = (ROOT / "docs" / "serve.md").read_text(encoding="utf-8").splitlines()
    return [line for line in lines if line.startswith("curl ")]


@pytest.mark.skipif(os.system("curl --version >/dev/null 2>&1") != 0, reason="there is no curl here")
@pytest.mark.parametrize("line", curl_lines())
def test_the_curl_lines_of_the_docs(server, tmp_path, line):
    (tmp_path / "photo.jpg").write_bytes(picture(96, 64, "JPEG"))
    film(tmp_path / "walk.mp4")
    with zipfile.ZipFile(tmp_path / "photos.zip", "w") as packed:
        packed.write(tmp_path / "photo.jpg", "photo.jpg")
    job = server.finished(server.json("/v1/jobs?to=night", animation(), Content_Type="image/gif"))
    line = line.replace("http://127.0.0.1:7860", server.url).replace("$JOB", job["id"])
    done = subprocess.run([*shlex.split(line), "--fail-with-body"], capture_output=True, cwd=tmp_path)
    assert done.returncode == 0, done.stdout
    if " -o " in line:
        assert (tmp_path / shlex.split(line)[shlex.split(line).index("-o") + 1]).stat().st_size > 100


def test_threads_of_the_crew_translate_side_by_side(models):
    """Many small pictures and some large ones through the queue: all right, whatever came before what."""
    translator = viceversa.load(models.first)
    queue = Queue([translator])
    sizes = [(40, 32), (600, 500), (32, 40)] * 4
    images = [np.random.default_rng(n).integers(0, 256, (*size, 3), np.uint8) for n, size in enumerate(sizes)]
    futures = [queue.put(Work(translator, image, "night")) for image in images]
    cancelled = queue.put(Work(translator, images[0], "night"))
    was_cancelled = cancelled.cancel()
    assert was_cancelled
    for image, future in zip(images, futures, strict=True):
        assert np.array_equal(future.result(LONG), translator(image, to="night"))
    queue.close()
