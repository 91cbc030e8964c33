"""`viceversa serve`: from a command line to a server that listens, and its orderly end."""

import errno
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
from ..terminal import words

NEEDED = {"fastapi": "fastapi", "uvicorn": "uvicorn", "python_multipart": "python-multipart",
          "prometheus_client": "prometheus-client"}  # fmt: skip
ADVICE = {
    errno.EADDRINUSE: "stop what listens there, or give another --port (0 takes a free one)",
    errno.EADDRNOTAVAIL: "it is no address of this machine: give another --host (0.0.0.0 is all that it has)",
    errno.EACCES: "give a --port above 1023",
}
"""Where it cannot listen."""


def command_serve(serve: Serve) -> int:
    """Serve until Ctrl-C or SIGTERM. Raises BadInput for what keeps it from starting, Interrupted where what was
    begun could not be finished in time."""
    missing = [package for module, package in NEEDED.items() if find_spec(module) is None]
    if missing:
        raise BadInput(f"serving needs {', '.join(missing)}: pip install 'viceversa[serve]'")
    serve = checked(serve)
    with listen(serve.host, serve.port) as listener:
        from .served import find

        models = find(serve)
        from .jobs import own_folder
        from .server import Server

        with own_folder() as folder:
            tempfile.tempdir = str(folder)  # of the libraries, too
            host, port = listener.getsockname()[:2]
            address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
            server = Server(serve, models, folder)
            tell(serve, models, address)
            if serve.open:
                webbrowser.open(address)
            server.run(sockets=[listener])
    if server.left:
        left = f"{words(server.left, 'request or job was', 'requests or jobs were')} not finished in time"
        raise Interrupted(server.signal, f"stopped; {left}")
    print("stopped; all that was begun is done", file=sys.stderr)
    return 0


def checked(serve: Serve) -> Serve:
    """Raises BadInput for values that cannot be meant."""
    from .guard import is_origin

    auth = serve.auth or os.environ.get("VICEVERSA_AUTH") or None
    if auth is not None and (auth.startswith(":") or ":" not in auth or auth.endswith(":")):
        raise BadInput("--auth: give USER:PASSWORD")
    for origin in serve.allow_origin:
        if not is_origin(origin):
            raise BadInput(f"--allow-origin {origin}: give scheme and host alone, such as https://photos.example")
    return replace(serve, auth=auth)


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens. Raises BadInput for a port that is taken and an address that is not this machine's."""
    try:
        family = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0][0]
    except OSError as error:
        raise BadInput(f"--host {host}: {error.strerror}") from None
    both = family == socket.AF_INET6 and socket.has_dualstack_ipv6()
    try:
        return socket.create_server((host, port), family=family, backlog=2048, dualstack_ipv6=both)
    except OSError as error:
        reason = str(error.strerror).partition(" (while attempting")[0].lower()  # create_server's own words
        advice = ADVICE.get(error.errno or 0, "give another --host or --port")
        raise BadInput(f"cannot listen on port {port} of {host}: {reason}: {advice}") from None


def tell(serve: Serve, models: Any, address: str) -> None:
    from .guard import is_loopback

    for served in models.values():
        print(f"serving {served.name}: to {' and to '.join(served.targets)}", file=sys.stderr)
    if not is_loopback(serve.host) and serve.auth is None:
        print(f"note: {serve.host} can be reached from other machines, by anybody: give --auth USER:PASSWORD, or "
              "listen on 127.0.0.1 (the default)", file=sys.stderr)  # fmt: skip
    print(f"{address} (Ctrl-C stops)", flush=True)
