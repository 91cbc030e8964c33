"""Uvicorn, with an end that answers what it has accepted, and with no patience for connections that say nothing."""

import asyncio
import sys
import time
from pathlib import Path
from types import FrameType
from typing import Any

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from ..config import Serve
from ..terminal import words
from .app import create
from .guard import UPLOAD_SECONDS
from .served import Models

HEAD_SECONDS = 30.0
"""Time that a connection may take to say what it wants."""


class Connection(H11Protocol):
    """Closed when it has asked for nothing for so long (Uvicorn's own clock begins anew with each byte), and when it
    does not read what it is sent."""

    unread: asyncio.TimerHandle

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        transport.set_write_buffer_limits(0)  # paused as soon as anything waits to be read
        self.loop.call_later(HEAD_SECONDS, self.look, None)

    def pause_writing(self) -> None:
        super().pause_writing()
        self.unread = self.loop.call_later(UPLOAD_SECONDS, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self.unread.cancel()

    def look(self, last: Any) -> None:
        idle = self.cycle is None or self.cycle.response_complete
        if idle and self.cycle is last:
            self.transport.close()
        elif not self.transport.is_closing():
            self.loop.call_later(HEAD_SECONDS, self.look, self.cycle)


class Server(uvicorn.Server):
    """Serves until SIGINT or SIGTERM. Then new requests get 503, what is running is finished, within the time limit
    of a request; a second signal ends at once, jobs at their next image."""

    def __init__(self, serve: Serve, models: Models, folder: Path):
        self.guard, self.jobs = create(serve, models, folder)
        self.limit = serve.seconds
        self.signal = 0
        self.left = 0
        """Requests and jobs that were cut off."""
        super().__init__(
            uvicorn.Config(
                self.guard,  # type: ignore[arg-type]
                http=Connection,
                ws="none",
                lifespan="on",
                log_level="warning",
                access_log=False,
                server_header=False,
                timeout_graceful_shutdown=2,
            )
        )

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        """Called between any two lines of Python: only notes what is wanted."""
        if self.signal:
            self.should_exit = True
            self.config.timeout_graceful_shutdown = 0  # Uvicorn's own force_exit would leave jobs running
        self.signal = sig

    async def main_loop(self) -> None:
        while not self.should_exit and not self.signal:
            await asyncio.sleep(0.1)
            await self.on_tick(0)
        if not self.should_exit:
            await self.finish()

    async def finish(self) -> None:
        """Wait for what is running, and for jobs that run, or whose upload still comes, to be fetched, within the
        limit."""
        self.guard.stopping = True
        began = time.monotonic()
        jobs = [job for job in list(self.jobs.all.values()) if not job.is_over()]
        inside = f"{words(self.guard.inside, 'request')} and {words(len(jobs), 'job')}"
        print(f"stopping: {inside} are finished first", file=sys.stderr)
        while not self.should_exit and time.monotonic() < began + self.limit:
            jobs = [job for job in list(self.jobs.all.values()) if job.ended is None or job.ended > began]
            waited_for = [job for job in jobs if not (job.is_over() and (job.fetched or job.state != "done"))]
            if not waited_for and not self.guard.inside:
                break
            await asyncio.sleep(0.05)
        self.left = self.guard.inside + sum(not job.is_over() for job in jobs)
