"""`viceversa serve`: from a command line to a server that listens, and its orderly end."""

import os
import socket
import sys
import tempfile
import webbrowser
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

from ..config import Serve
from ..errors import BadInput, Interrupted

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart",
          "prometheus_client": "prometheus-client"}  # fmt: skip


def command_serve(serve: Serve) -> int:
    """Serve until Ctrl-C or SIGTERM. Raises BadInput for what keeps it from starting, Interrupted where what was
    begun could not be finished in time."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise BadInput(f"serving needs {', '.join(missing)}: pip install 'viceversa[serve]'")
    serve = checked(serve)
    listener = listen(serve.host, serve.port)
    try:
        from .served import find

        models = find(serve)
    except BaseException:
        listener.close()
        raise
    from .jobs import Folder
    from .server import Server

    folder = Folder()
    tempfile.tempdir = str(folder.path)  # of the libraries, too
    try:
        host, port = listener.getsockname()[:2]
        address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
        server = Server(serve, models, folder.path)
        tell(serve, models, address)
        if serve.open:
            webbrowser.open(address)
        server.run(sockets=[listener])
    finally:
        folder.remove()
    if server.left:
        raise Interrupted(server.signal, f"stopped; {server.left} requests or jobs were not finished in time")
    print("stopped; all that was begun is done", file=sys.stderr)
    return 0


def checked(serve: Serve) -> Serve:
    """Raises BadInput for values that cannot be meant."""
    auth = serve.auth or os.environ.get("VICEVERSA_AUTH") or None
    if auth is not None and (auth.startswith(":") or ":" not in auth or auth.endswith(":")):
        raise BadInput("--auth: give USER:PASSWORD")
    for origin in serve.allow_origin:
        if not origin.startswith(("http://", "https://")):
            raise BadInput(f"--allow-origin {origin}: give scheme and host, such as https://photos.example")
    return replace(serve, auth=auth)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises BadInput for a port that is taken and an address that is not this machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
        listener = socket.socket(family, socket.SOCK_STREAM)
    except OSError as error:
        raise BadInput(f"--host {host}: {error.strerror}") from None
    try:
        if os.name == "posix":
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind((host, port))
        listener.listen(2048)
    except OSError as error:
        listener.close()
        free = ": stop what listens there, or give another --port (0 takes a free one)"
        raise BadInput(
            f"cannot listen on port {port} of {host}: {(error.strerror or str(error)).lower()}{free}"
        ) from None
    return listener


def tell(serve: Serve, models: Any, address: str) -> None:
    for served in models.values():
        print(f"serving {served.name}: to {' and to '.join(served.targets)}", file=sys.stderr)
    if serve.host not in ("127.0.0.1", "localhost", "::1") and serve.auth is None:
        print(f"note: {serve.host} can be reached from other machines, by anybody: give --auth USER:PASSWORD, or "
              "listen on 127.0.0.1 (the default)", file=sys.stderr)  # fmt: skip
    print(f"{address} (Ctrl-C stops)", flush=True)
