"""What stands before every route: limits on bodies and time, credentials, other sites, headers that browsers heed."""

import asyncio
import base64
import hmac
import ipaddress
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from typing import Any
from urllib.parse import urlsplit

from starlette.responses import JSONResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from ..config import Serve
from .refusal import Refusal

MOST = 1000
"""Requests inside at a time, whatever they ask for."""
ARCHIVES = 8
"""How much larger than a picture's an upload of films or several pictures may be."""
HELD = 16
"""Uploads of the largest size that may be held at a time, of pictures and of jobs."""
UPLOAD_SECONDS = 120.0
"""Time that a body may take to arrive, and an answer, or the next part of a file, to be read."""
DRAIN_SECONDS = 10.0
"""Time for the rest of a body that is refused."""
NOTES = "Viceversa-Notes"
"""The header that tells what was changed in a picture, or left out: a JSON list of sentences."""
OPEN = ("/healthz",)
"""Told to anybody."""

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; media-src 'self' blob:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "content-security-policy": POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "permissions-policy": "camera=(self), microphone=(), geolocation=()",
}


class Guard:
    """The application behind its guard. Refusals raised before an answer has begun become its answers."""

    def __init__(self, app: ASGIApp, serve: Serve, on_answer: Callable[[Scope, int, float], None]):
        """`on_answer(scope, status, seconds)` is called for each request."""
        self.app, self.on_answer = app, on_answer
        self.megabytes = serve.megabytes
        self.auth = serve.auth.encode() if serve.auth else None
        self.origins = {origin.rstrip("/").lower() for origin in serve.allow_origin}
        self.hosts = {urlsplit(origin).netloc for origin in self.origins}
        self.loopback = is_loopback(serve.host)
        self.stopping = False
        self.inside = 0
        self.held = Counter[float]()
        """Bytes of the bodies that have come in and are not answered yet, by what one of them may have."""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return await self.app(scope, receive, send)
        began = time.monotonic()
        request = Request(self, scope, receive, send)
        self.inside += 1
        try:
            self.check(scope, request.headers)
            if self.is_preflight(scope, request.headers):
                await request.answer(allowed(request.headers.get("access-control-request-headers", "")))
            else:
                await self.app(scope, request.receive, request.send)
        except Refusal as refusal:
            await request.answer(refused(refusal))
        except asyncio.CancelledError:  # what is cut off at the end
            if not self.stopping:
                raise
            await request.answer(refused(Refusal(503, "the server has stopped", Connection="close")))
        finally:
            self.inside -= 1
            self.held[request.largest] -= request.taken
            self.on_answer(scope, request.status, time.monotonic() - began)

    def check(self, scope: Scope, headers: dict[str, str]) -> None:
        """Raises Refusal for a request that is not answered."""
        self.check_site(headers)
        if self.auth is not None and not self.is_preflight(scope, headers) and scope["path"] not in OPEN:
            self.check_credentials(headers.get("authorization", ""))
        of_a_job = scope["method"] in ("GET", "HEAD", "DELETE") and "/jobs/" in scope["path"]
        if self.stopping and scope["path"] not in OPEN and not of_a_job:
            raise Refusal(503, "the server is stopping; it may be back soon", retry_after=10, Connection="close")
        if self.inside > MOST:
            raise Refusal(503, "too many requests at a time, come back later", retry_after=5)
        length = headers.get("content-length", "0")
        if length.isdecimal() and int(length) > self.largest(scope["path"]):
            raise self.too_large(scope["path"])

    def is_preflight(self, scope: Scope, headers: dict[str, str]) -> bool:
        """A browser asks whether a page of an allowed site may call; it sends no credentials yet."""
        asks = scope["method"] == "OPTIONS" and "access-control-request-method" in headers
        return asks and headers.get("origin", "").lower() in self.origins

    def check_site(self, headers: dict[str, str]) -> None:
        """Pages of other sites may not call, nor reach a server of this machine alone by a name of their own."""
        host, origin = headers.get("host", "").lower(), headers.get("origin", "").lower()
        try:
            name, site = urlsplit(f"//{host}").hostname or "", urlsplit(origin).netloc
        except ValueError:
            raise Refusal(400, "Host and Origin must be addresses, such as http://127.0.0.1:7860") from None
        if self.loopback and not is_loopback(name) and host not in self.hosts:
            raise Refusal(403, f"this server does not answer to the name {name!r}: start it with --allow-origin for it")
        if origin and origin not in self.origins and site != host:
            allow = f"start the server with --allow-origin {origin}"
            nobody = "that is no site (a page opened from a file has none): open it from one that --allow-origin names"
            raise Refusal(403, f"pages of {origin} may not call: {allow if is_origin(origin) else nobody}")

    def check_credentials(self, authorization: str) -> None:
        """HTTP Basic (RFC 7617), compared in constant time."""
        assert self.auth is not None
        kind, _, encoded = authorization.partition(" ")
        given = b""
        if kind.lower() == "basic":
            with suppress(ValueError):
                given = base64.b64decode(encoded, validate=True)
        if not hmac.compare_digest(given, self.auth):
            what = "wrong user or password" if authorization else "user and password are wanted"
            raise Refusal(401, what, WWW_Authenticate='Basic realm="viceversa", charset="UTF-8"')

    def largest(self, path: str) -> float:
        """Bytes that a body may have there."""
        return self.megabytes * 1e6 * (ARCHIVES if path.startswith("/v1/jobs") else 1)

    def too_large(self, path: str) -> Refusal:
        return Refusal(413, f"the body is too large: at most {self.largest(path) / 1e6:g} MB here")


class Request:
    """One request on its way through the guard."""

    def __init__(self, guard: Guard, scope: Scope, receive: Receive, send: Send):
        self.guard, self.scope = guard, scope
        self.receive_next, self.send_next = receive, send
        self.headers = {name.decode("latin-1"): value.decode("latin-1") for name, value in scope["headers"]}
        self.until = time.monotonic() + UPLOAD_SECONDS
        self.arrived = not ("transfer-encoding" in self.headers or self.headers.get("content-length", "0") != "0")
        self.largest = guard.largest(scope["path"])
        self.taken = 0
        self.status = 0

    async def receive(self) -> Message:
        """The next part of the body. Raises Refusal for one that is too large, too slow, or for which there is
        no room."""
        if self.arrived:
            return await self.receive_next()
        try:
            async with asyncio.timeout(self.until - time.monotonic()):
                message = await self.receive_next()
        except TimeoutError:
            late = f"the body did not arrive within {UPLOAD_SECONDS:g} seconds"
            raise Refusal(408, late, Connection="close") from None
        count = len(message.get("body", b""))
        self.taken += count
        self.guard.held[self.largest] += count
        if self.taken > self.largest:
            raise self.guard.too_large(self.scope["path"])
        if self.guard.held[self.largest] > HELD * self.largest:
            raise Refusal(503, "too many uploads at a time, come back later", retry_after=5)
        self.arrived = not message.get("more_body", False)
        return message

    async def send(self, message: Message) -> None:
        if message["type"] == "http.response.start":
            self.status = message["status"]
            message = {**message, "headers": self.with_headers(message.get("headers", []))}
        if message["type"] == "http.response.body" and not message.get("more_body") and not self.arrived:
            # Closed while it still sends, the client would never read why.
            await self.send_next({**message, "more_body": True})
            await self.drain()
            message = {"type": "http.response.body"}
        await self.send_next(message)

    async def drain(self) -> None:
        """Let the rest of a body come, for a while, and forget it."""
        if "expect" in self.headers:  # it waits to hear whether to send it
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(DRAIN_SECONDS):
                message: Message = {"more_body": True}
                while message.get("more_body"):
                    message = await self.receive_next()

    def with_headers(self, given: Any) -> list[tuple[bytes, bytes]]:
        headers = list(given)
        named = {name.lower() for name, _ in headers}
        wanted = dict(HEADERS)
        origin = self.headers.get("origin", "").lower()
        if origin in self.guard.origins:
            wanted |= {"access-control-allow-origin": self.headers["origin"], "vary": "Origin"}
            wanted |= {"access-control-allow-credentials": "true", "cross-origin-resource-policy": "cross-origin"}
            wanted |= {"access-control-expose-headers": f"Content-Disposition, Location, Retry-After, {NOTES}"}
        return headers + [(n.encode(), v.encode()) for n, v in wanted.items() if n.encode() not in named]

    async def answer(self, response: Response) -> None:
        """Answer instead of the application, if it has not begun to."""
        if not self.status:
            await response(self.scope, self.receive_next, self.send)


def is_loopback(host: str) -> bool:
    """Is it this machine alone?"""
    with suppress(ValueError):
        return ipaddress.ip_address(host).is_loopback
    return host == "localhost"


def is_origin(given: str) -> bool:
    """Is it what browsers send: scheme and host, and the port where it is not the scheme's own?"""
    given = given.lower().removesuffix("/")
    try:
        parts = urlsplit(given)
        own = parts.port == {"http": 80, "https": 443}.get(parts.scheme)
    except ValueError:
        return False
    return bool(parts.hostname) and "@" not in given and not own and given == f"{parts.scheme}://{parts.netloc}"


def refused(refusal: Refusal) -> JSONResponse:
    return JSONResponse({"error": refusal.sentence}, refusal.status, refusal.headers)


def allowed(headers: str) -> Response:
    """What a preflight is answered; the rest of the headers comes with every answer to that site."""
    methods = {"Access-Control-Allow-Methods": "GET, POST, DELETE", "Access-Control-Max-Age": "600"}
    return Response(None, 204, {**methods, "Access-Control-Allow-Headers": headers})
