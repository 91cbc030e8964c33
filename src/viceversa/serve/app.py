"""The page and the API: what is asked, whether it may be, and the answer. The work is done in queue.py and jobs.py."""

import asyncio
import json
import mimetypes
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from tempfile import SpooledTemporaryFile, mkdtemp
from typing import IO, Annotated, Any, Literal, TypeVar
from urllib.parse import quote

import prometheus_client as prometheus
from fastapi import FastAPI, Request
from fastapi import Path as InPath
from pydantic import BaseModel
from starlette.datastructures import UploadFile
from starlette.exceptions import HTTPException
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import ClientDisconnect
from starlette.responses import FileResponse, JSONResponse, Response
from starlette.routing import Route
from starlette.types import Scope

from .. import __version__
from ..config import Serve
from ..data import pictures
from ..data.statistics import remark
from ..errors import BadInput, suggestion
from ..files import DISK_FULL
from ..translation.command import FORMATS, SUFFIXES
from .guard import ARCHIVES, NOTES, Guard, refused
from .jobs import ENDING, FILMS, FULL, Job, Jobs, harmless_name, kind_of, look_at
from .queue import Queue, Room, Work
from .refusal import Refusal, in_fields
from .served import Models, Served, page_file, samples

IN_MEMORY = 1 << 20
"""Bytes of an upload that are kept in memory; larger ones go to the server's folder."""
QUALITY = 80
"""Of JPEG and WebP, as `translate`."""
MIME = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp", "TIFF": "image/tiff", "BMP": "image/bmp",
        "GIF": "image/gif"}  # fmt: skip
RESULTS = ("application/zip", "video/mp4", "video/quicktime", "video/x-matroska", "video/webm", "video/x-msvideo",
           "image/gif", "image/webp", "application/octet-stream")  # fmt: skip
SAMPLE_PIXELS = 384 * 384
REPORT_POLICY = (
    "default-src 'none'; img-src data:; style-src 'unsafe-inline'; script-src 'unsafe-inline'; frame-ancestors 'none'; "
    "sandbox allow-scripts"
)
T = TypeVar("T")


class Error(BaseModel):
    """What went wrong, in one sentence."""

    error: str


class About(BaseModel):
    """A model that is served."""

    name: str
    domains: list[str]
    directions: list[dict[Literal["from", "to"], str]]
    card: str
    picture: str
    report: str | None
    films: dict[str, str]


class ModelList(BaseModel):
    models: list[About]


class Card(BaseModel, extra="allow"):
    """What is known of a model: data, recipe, fails, licence, training, scores, where they are known."""

    domains: list[str]


class JobState(BaseModel):
    """How far a job is."""

    id: str
    state: Literal["waiting", "running", "done", "failed", "cancelled"]
    done: int
    total: int | None
    """Images in all, where that is known."""
    model: str
    to: str
    name: str | None
    """Name of the result."""
    result: str | None
    """Where the result is, once it is done."""
    error: str | None
    failed: list[str]
    """What could not be translated, and why."""
    notes: list[str]
    """What was changed, left out or not heeded."""


class Alive(BaseModel):
    status: Literal["ok", "stopping"]


@dataclass(frozen=True)
class Asked:
    """The parameters of a request, from its query or its form."""

    served: Served
    to: str
    format: str | None = None
    size: int | None = None
    back: bool = False
    strength: float = 1.0

    @staticmethod
    def read(given: dict[str, str], models: Models) -> "Asked":
        """Raises Refusal (404, 422)."""
        known = ("model", "to", "format", "size", "strength", "back")
        for name in given:
            if name not in known:
                hint = suggestion(name, known, f"choose {', '.join(known)}")
                raise Refusal(422, f"no parameter {name!r}: {hint}")
        served = models.meant(given.get("model") or None, given.get("to") or None)
        size, back = given.get("size") or None, given.get("back") or "false"
        format = as_format(given["format"]) if given.get("format") else None
        if size is not None and not (
            size.isascii() and size.isdecimal() and len(size) <= 4 and 16 <= int(size) <= 8192
        ):
            raise Refusal(422, f"size {size!r}: give the short side in pixels, from 16 to 8192")
        strength = as_strength(given.get("strength") or "1")
        if back not in ("true", "false"):
            raise Refusal(422, f"back {back!r}: give true or false")
        to = served.target(given.get("to") or None)
        if back == "true" and len(served.targets) < 2:
            raise Refusal(422, f"{served.name} knows one direction only: there is no way back")
        return Asked(served, to, format, int(size) if size else None, back == "true", strength)


def as_format(given: str) -> str:
    """One of FORMATS, also by another of its endings, such as JPG or jpeg. Raises Refusal (422)."""
    meant = SUFFIXES.get(f".{given.lower()}")
    for format, name in FORMATS.items():
        if name == meant:
            return format
    hint = suggestion(given, FORMATS, f"choose {', '.join(FORMATS)}")
    raise Refusal(422, f"no format {given!r}: {hint}")


def as_strength(given: str) -> float:
    """Raises Refusal (422)."""
    try:
        strength = float(given)
    except ValueError:
        strength = -1.0
    if not 0 <= strength <= 1:  # NaN, too
        raise Refusal(422, f"strength {given[:40]!r}: give how much of the way to go, from 0 to 1")
    return strength


def fields(models: Models) -> dict[str, tuple[dict[str, Any], str]]:
    """The fields of an upload: their schemas, and what they mean."""
    targets = list(dict.fromkeys(target for served in models.values() for target in served.targets))
    return {
        "model": ({"enum": list(models)}, "Name of the model; where it is left out, the first that has this domain."),
        "to": ({"enum": targets}, "Domain to translate to; may be left out where the model has one direction only."),
        "format": ({"enum": list(FORMATS)}, "Format of the pictures; default: that of the input."),
        "size": (
            {"type": "integer", "minimum": 16, "maximum": 8192},
            "Translate with the short side at this, then return to the input's size, with the input's detail.",
        ),
        "strength": (
            {"type": "number", "minimum": 0, "maximum": 1},
            "How much of the way to go: 1 the full translation (the default), 0 the input.",
        ),
    }


BACK = {"back": ({"type": "boolean"}, "Go there and back again: the round trip.")}
BINARY: dict[str, Any] = {"type": "string", "format": "binary"}


def takes(file: str, described: str, given: dict[str, Any], raw: list[str], several: bool = False) -> dict[str, Any]:
    """The OpenAPI description of an upload: a form, or the bytes themselves with the fields in the query."""
    upload = {"type": "array", "items": BINARY, "minItems": 1} if several else BINARY
    form = {
        "type": "object",
        "required": [file],
        "properties": {file: upload} | {name: schema for name, (schema, _) in given.items()},
    }
    content = {"multipart/form-data": {"schema": form}} | {kind: {"schema": BINARY} for kind in raw}
    return {
        "parameters": [
            {"name": name, "in": "query", "required": False, "schema": schema, "description": said}
            for name, (schema, said) in given.items()
        ],
        "requestBody": {"required": True, "description": described, "content": content},
    }


def tells(*statuses: int) -> dict[int | str, dict[str, Any]]:
    return {status: {"model": Error, "description": "One sentence that says why."} for status in statuses}


REFUSED = tells(400, 401, 403, 404, 405, 408, 413, 415, 422, 503, 504, 507)


def create(serve: Serve, models: Models, folder: Path) -> tuple[Guard, Jobs]:
    """The application behind its guard, which is what to run, and its jobs. Temporary files go below `folder`."""
    known = prometheus.CollectorRegistry()
    answers = prometheus.Counter("viceversa_requests", "Requests.", ["route", "status"], registry=known)
    seconds = prometheus.Histogram("viceversa_request_seconds", "From head to answer.", ["route"], registry=known)
    passes = prometheus.Histogram("viceversa_network_seconds", "A pass through the network.", registry=known)
    counted = prometheus.Counter("viceversa_pictures", "Pictures and frames translated.", registry=known)
    inside = prometheus.Gauge("viceversa_pictures_inside", "Pictures being decoded to encoded.", registry=known)
    unfinished = prometheus.Gauge("viceversa_jobs", "Jobs waiting or running.", registry=known)

    def on_batch(count: int, took: float) -> None:
        passes.observe(took)
        counted.inc(count)
        room.pace = 0.9 * room.pace + 0.1 * took / count

    def on_answer(scope: Scope, status: int, took: float) -> None:
        route = getattr(scope.get("route"), "path", "other")  # no label from a client
        answers.labels(route, str(status or 499)).inc()
        seconds.labels(route).observe(took)

    room = Room(serve.queue, max(serve.megapixels, serve.queue) * 1e6)
    queue = Queue([served.translator for served in models.values()], on_batch)
    jobs = Jobs(folder, queue, ARCHIVES * serve.megabytes * 1e6, serve.megapixels)
    inside.set_function(lambda: room.pictures_inside)
    unfinished.set_function(lambda: sum(not job.is_over() for job in jobs.all.values()))

    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        forgetting = asyncio.create_task(every_minute(jobs.forget))
        yield
        forgetting.cancel()
        await asyncio.to_thread(jobs.close)
        queue.close()

    app = FastAPI(
        title="viceversa", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        description="Unpaired image-to-image translation, both ways.",
    )  # fmt: skip
    answer_errors(app)
    serve_page(app)

    @app.post(
        "/v1/translate",
        tags=["pictures"],
        response_class=Response,
        responses={200: {"content": {mime: {"schema": BINARY} for mime in MIME.values()},
                         "headers": {NOTES: {"description": "What was changed or left out, where anything was: a JSON "
                                             "list of sentences, in ASCII.", "schema": {"type": "string"}}},
                         "description": "The picture, of the same size."}, **REFUSED},
        openapi_extra=takes("image", "A picture.", fields(models) | BACK, [*MIME.values(), "application/octet-stream"]),
    )  # fmt: skip
    async def translate(request: Request) -> Response:
        """Translate one picture."""
        async with uploaded(request, folder) as (sent, given):
            asked = Asked.read(given, models)
            if len(sent) != 1:
                raise Refusal(400, f"send one picture, not {len(sent)}; several go to /v1/jobs")
            name, file = sent[0]
            data = await asyncio.to_thread(file.read)
        if await asyncio.to_thread(kind_of, data) in ("mp4", "mov", "mkv", "webm", "avi", "zip"):
            raise Refusal(415, "films and archives go to /v1/jobs")
        pixels = await asyncio.to_thread(look_at, data, serve.megapixels, asked.size)
        with room.enter(pixels):
            format, body, notes = await within(serve.seconds, request, translated(queue, asked, data))
        shown = quote(f"{PurePosixPath(harmless_name(name)).stem}.{asked.to}{ENDING[format]}")
        about = {"Content-Disposition": f"inline; filename*=UTF-8''{shown}", "Cache-Control": "no-store"}
        about |= {NOTES: json.dumps(notes)} if notes else {}
        return Response(body, 200, about, MIME[format])

    @app.post(
        "/v1/jobs",
        tags=["jobs"],
        status_code=202,
        response_model=JobState,
        responses=REFUSED,
        openapi_extra=takes("files", "A film, an animation, an archive, or several pictures.", fields(models),
                            ["video/mp4", "image/gif", "application/zip", "application/octet-stream"], several=True),
    )  # fmt: skip
    async def begin(request: Request, response: Response) -> dict[str, Any]:
        """Begin a job: a film or an animation gives a film, pictures give an archive."""
        jobs.check_room()
        async with uploaded(request, folder) as (sent, given):
            asked = Asked.read(given, models)
            if asked.back:
                raise Refusal(422, "the round trip is for single pictures")
            job = await asyncio.to_thread(laid_down, sent, asked, folder)
        jobs.add(job)
        response.headers["Location"] = f"/v1/jobs/{job.id}"
        return job.about()

    JobId = Annotated[str, InPath(description="The id that the job was given.")]

    @app.get("/v1/jobs/{id}", tags=["jobs"], response_model=JobState, responses=REFUSED)
    async def look(id: JobId) -> dict[str, Any]:
        """How far a job is."""
        return jobs.named(id).about()

    @app.delete("/v1/jobs/{id}", tags=["jobs"], response_model=JobState, responses=REFUSED)
    async def cancel(id: JobId) -> dict[str, Any]:
        """Cancel a job, or let go of its result."""
        job = jobs.named(id)
        await asyncio.to_thread(jobs.cancel, job)
        return {**job.about(), "state": "cancelled", "result": None}

    @app.head("/v1/jobs/{id}/result", include_in_schema=False)
    @app.get(
        "/v1/jobs/{id}/result",
        tags=["jobs"],
        response_class=Response,
        responses={200: {"content": {mime: {"schema": BINARY} for mime in RESULTS}, "description": "What was made."},
                   206: {"description": "A part of it."}, 416: {"description": "No such part."},
                   **tells(409), **REFUSED},
    )  # fmt: skip
    async def result(id: JobId, request: Request) -> Response:
        """What a job has made."""
        job = jobs.named(id)
        if job.state != "done" or job.result is None:
            raise Refusal(409, job.error or f"the job is {job.state}, its result is not there")
        job.fetched |= request.method == "GET"
        mime = mimetypes.guess_type(job.result.name)[0] or "application/octet-stream"
        return FileResponse(job.result, media_type=mime, filename=job.name, content_disposition_type="inline")

    @app.get("/v1/models", tags=["models"], response_model=ModelList, responses=REFUSED)
    async def list_models() -> dict[str, Any]:
        """The models that are served."""
        return {"models": [served.about() for served in models.values()]}

    @app.get("/v1/models/{name}/card", tags=["models"], response_model=Card, responses=REFUSED)
    async def card(name: str) -> dict[str, Any]:
        """What a model was trained on, and what it fails at."""
        return models.named(name).card

    @app.get("/v1/models/{name}/picture", tags=["models"], response_class=Response,
             responses={200: {"content": {"image/webp": {}}}, **REFUSED})  # fmt: skip
    async def picture(name: str) -> Response:
        """A picture for a model's card."""
        served = models.named(name)
        with room.enter(SAMPLE_PIXELS):
            return Response(await asyncio.to_thread(lambda: served.picture), media_type="image/webp")

    @app.get("/v1/models/{name}/report", tags=["models"], response_class=Response,
             responses={200: {"content": {"text/html": {}}}, **REFUSED})  # fmt: skip
    async def report(name: str) -> Response:
        """The report of a model's training."""
        served = models.named(name)
        if served.report is None:
            raise Refusal(404, f"{served.name} comes without a report")
        return FileResponse(served.report, headers={"Content-Security-Policy": REPORT_POLICY}, media_type="text/html")

    @app.get("/v1/models/{name}/films/{to}", tags=["models"], response_class=Response,
             responses={200: {"content": {"image/gif": {}}}, **REFUSED})  # fmt: skip
    async def film(name: str, to: str) -> Response:
        """The film of a model's training."""
        served = models.named(name)
        if to not in served.films:
            raise Refusal(404, f"{served.name} comes without a film to {to!r}")
        return FileResponse(served.films[to], media_type="image/gif")

    @app.head("/healthz", include_in_schema=False)
    @app.get("/healthz", tags=["server"], response_model=Alive)
    async def healthz() -> dict[str, str]:
        """Is the server alive?"""
        return {"status": "stopping" if guard.stopping else "ok"}

    @app.head("/readyz", include_in_schema=False)
    @app.get("/readyz", tags=["server"], response_model=Alive, responses=tells(401, 403, 503))
    async def readyz() -> dict[str, str]:
        """Does it take pictures now?"""
        with room.enter(0):
            return {"status": "ok"}

    @app.get("/metrics", tags=["server"], response_class=Response,
             responses={200: {"content": {"text/plain": {}}}, **tells(401, 403, 503)})  # fmt: skip
    async def metrics() -> Response:
        """Counters for Prometheus."""
        return Response(prometheus.generate_latest(known), media_type=prometheus.CONTENT_TYPE_PLAIN_1_0_0)

    guard = Guard(app, serve, on_answer)
    return guard, jobs


Upload = tuple[str | None, IO[bytes]]
"""The name that a client gives a file, and what is in it."""


@asynccontextmanager
async def uploaded(request: Request, folder: Path) -> AsyncIterator[tuple[list[Upload], dict[str, str]]]:
    """The files of a request with their names, and its parameters. Raises Refusal (400, 415)."""
    kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
    query = request.query_params.multi_items()
    if kind == "multipart/form-data":
        parts = await form(request)
        files: list[Upload] = [(value.filename, value.file) for _, value in parts if isinstance(value, UploadFile)]
        try:
            given = agreed([*query, *((name, value) for name, value in parts if isinstance(value, str))])
            if not files:
                raise Refusal(400, "the form holds no file: send one, as with curl -F image=@photo.jpg")
            yield files, given
        finally:
            for _, file in files:
                file.close()
    elif kind in ("", "application/octet-stream", "application/zip") or kind.startswith(("image/", "video/")):
        with SpooledTemporaryFile(IN_MEMORY, dir=str(folder)) as file:
            async for part in request.stream():
                file.write(part)
            file.seek(0)
            yield [(None, file)], agreed(query)
    else:
        bare = "curl -H 'Content-Type: image/jpeg' --data-binary @photo.jpg"
        ways = f"(curl -F image=@photo.jpg), or bytes with their own type ({bare})"
        raise Refusal(415, f"cannot take {kind[:60]}: send multipart/form-data {ways}")


class Form(MultiPartParser):
    """Starlette's, which takes a form that breaks off for a whole one."""

    ended = False

    def on_end(self) -> None:
        self.ended = True


async def form(request: Request) -> list[tuple[str, UploadFile | str]]:
    """The parts of a form. Raises Refusal (400)."""
    parser = Form(request.headers, request.stream(), max_files=1000, max_fields=16, max_part_size=10_000)
    try:
        found = await parser.parse()
    except MultiPartException as wrong:
        raise Refusal(400, wrong.message) from None
    if not parser.ended:
        await found.close()
        raise Refusal(400, "the form breaks off before its end: send all of it, with the line that closes it")
    return found.multi_items()


def agreed(given: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Parameters of the address and of the form. Raises Refusal (422) where one is given twice, as two things."""
    found: dict[str, str] = {}
    for name, value in given:
        if found.setdefault(name, value) != value:
            raise Refusal(422, f"{name!r} is given twice, and they differ: leave one out")
    return found


async def within(seconds: float, request: Request, work: Awaitable[T]) -> T:
    """The result of some work. Raises Refusal (504) when it takes too long, ClientDisconnect when nobody waits for it
    any more; the work is cancelled then."""
    doing = asyncio.ensure_future(work)
    leaving = asyncio.ensure_future(until_gone(request))
    try:
        await asyncio.wait({doing, leaving}, timeout=seconds, return_when=asyncio.FIRST_COMPLETED)
        if doing.done():
            return doing.result()
        if leaving.done():
            raise ClientDisconnect
        raise Refusal(504, f"it took longer than {seconds:g} seconds: send a smaller picture, or give a smaller size")
    finally:
        doing.cancel()
        leaving.cancel()


async def until_gone(request: Request) -> None:
    while (await request.receive())["type"] != "http.disconnect":
        pass


async def translated(queue: Queue, asked: Asked, data: bytes) -> tuple[str, bytes, list[str]]:
    """Pillow's name of the format, the file - decoded, there (and back), encoded, by the rules of `translate` -, and
    what was changed or left out.

    Raises Refusal (400, 422, 507).
    """
    translator = asked.served.translator
    home = next(domain for domain in translator.domains if domain != asked.to)
    channels = translator.channels(translator.model.direction(asked.to))
    try:
        before = await asyncio.to_thread(pictures.read, data, channels)
    except BadInput as wrong:
        raise Refusal(400, wrong) from None
    known = translator.model.info.get("statistics", {})
    unlike = await asyncio.to_thread(remark, before.pixels, known, home, asked.to)
    pixels = await asyncio.wrap_future(queue.put(Work(translator, before.pixels, asked.to, asked.size, asked.strength)))
    if asked.back:
        pixels = await asyncio.wrap_future(queue.put(Work(translator, pixels, home, asked.size)))
    after = replace(before, pixels=pixels, format=FORMATS.get(asked.format or "", before.format))
    try:
        body, lost = await asyncio.to_thread(pictures.encoded, after, QUALITY)
    except BadInput as wrong:  # too large for its format
        raise Refusal(422, wrong) from None
    return after.format, body, [in_fields(note) for note in (*before.notes, unlike, *lost) if note]


def laid_down(files: list[Upload], asked: Asked, folder: Path) -> Job:
    """A job with its files in a folder of its own, under numbers. Raises Refusal (400, 415)."""
    job = Job(Path(mkdtemp(dir=folder)), asked.served, asked.to, [], asked.format, asked.size, asked.strength)
    try:
        (job.folder / "in").mkdir()
        for number, (name, file) in enumerate(files):
            path = job.folder / "in" / f"{number:04d}"
            with open(path, "wb") as out:
                shutil.copyfileobj(file, out)
            kind = kind_of(path)
            if len(files) == 1:
                if not kind:
                    empty = not path.stat().st_size
                    raise Refusal(400 if empty else 415, "the file is empty" if empty else "not a film, an animation, "
                                  "an archive or a picture that can be read")  # fmt: skip
                path = path.rename(path.with_suffix(f".{kind}" if kind in FILMS else ""))
            job.files.append((harmless_name(name, "film" if kind in FILMS else "picture"), path))
    except BaseException:
        shutil.rmtree(job.folder, ignore_errors=True)
        raise
    return job


def answer_errors(app: FastAPI) -> None:
    """Whatever goes wrong is told in one sentence, as JSON; never a traceback."""

    @app.exception_handler(Refusal)
    async def refusal(request: Request, error: Refusal) -> Response:
        return refused(error)

    @app.exception_handler(HTTPException)
    async def http(request: Request, error: HTTPException) -> Response:
        if error.status_code == 405:  # Starlette names the methods of the first route of this address alone
            here = [
                route for route in app.routes if isinstance(route, Route) and route.path_regex.match(request.url.path)
            ]
            error.headers = {"Allow": ", ".join(sorted({method for route in here for method in route.methods or ()}))}
        words = {404: "there is nothing here", 405: f"{request.method} is not for this address"}
        told = Refusal(error.status_code, words.get(error.status_code, error.detail)).sentence
        return JSONResponse({"error": told}, error.status_code, error.headers)

    @app.exception_handler(OSError)
    async def full(request: Request, error: OSError) -> Response:
        if error.errno not in DISK_FULL:
            raise error
        return refused(Refusal(507, FULL))

    @app.exception_handler(ClientDisconnect)
    async def gone(request: Request, error: ClientDisconnect) -> Response:
        return Response(status_code=499)

    @app.exception_handler(Exception)
    async def unforeseen(request: Request, error: Exception) -> Response:
        return JSONResponse({"error": "the server stumbled over this, and has told its owner why"}, 500)


PAGE = {
    "index.html": "text/html",
    "page.css": "text/css",
    "serve.css": "text/css",
    "page.js": "text/javascript",
    "engine.js": "text/javascript",
}


def serve_page(app: FastAPI) -> None:
    """The page's files and its samples, held in memory: no address reaches the file system."""
    held = {f"/{name}": (page_file(name), mime) for name, mime in PAGE.items()}
    held["/"] = held.pop("/index.html")
    held |= {f"/samples/{name}.jpg": (data, "image/jpeg") for name, data in samples().items()}

    async def answer(request: Request) -> Response:
        data, mime = held[request.scope["route"].path]
        return Response(data, 200, {"Cache-Control": "no-cache"}, mime)

    for path in held:
        app.add_api_route(path, answer, methods=["GET", "HEAD"], include_in_schema=False)


async def every_minute(task: Callable[[], None]) -> None:
    while True:
        await asyncio.sleep(60)
        await asyncio.to_thread(task)
