"""The application under load: answers that can be checked, and faults on demand."""

from __future__ import annotations

import ctypes
import os
import time
from collections.abc import Callable, Iterable
from urllib.parse import parse_qsl

from content import text_for

HERE = os.path.dirname(os.path.abspath(__file__))
# Who got as far as the application is told by this file, whatever the client saw.
STARTED = os.open(os.path.join(HERE, "run", "started"), os.O_WRONLY | os.O_APPEND)

# What the application will not let go of.
KEPT: list[bytearray] = []

# How much is taken at once until there is no more: small enough that little is left over.
MORSEL = 1 << 16

Answer = Iterable[bytes]
Fields = dict[str, str]


def fast(fields: Fields, _environ: dict) -> Answer:
    """An ordinary answer."""
    return [text_for(fields["id"], int(fields["size"]))]


def slow(fields: Fields, environ: dict) -> Answer:
    """An answer that takes its time without using any."""
    time.sleep(float(fields["seconds"]))
    return fast(fields, environ)


def stream(fields: Fields, _environ: dict) -> Answer:
    """An answer in pieces, of a length nobody announces."""
    whole = text_for(fields["id"], int(fields["size"]))
    for at in range(0, len(whole), 8192):
        yield whole[at : at + 8192]


def echo(_fields: Fields, environ: dict) -> Answer:
    """What the request brought."""
    return [environ["wsgi.input"].read()]


def leak(fields: Fields, environ: dict) -> Answer:
    """Keeps so many bytes, and uses them."""
    KEPT.append(bytearray(b"x" * int(fields["bytes"])))
    return fast(fields, environ)


def hog(_fields: Fields, _environ: dict) -> Answer:
    """Keeps all the memory there is."""
    size = 1 << 24
    while True:
        try:
            KEPT.append(bytearray(size))
        except MemoryError:
            if size <= MORSEL:
                raise
            size //= 2


def burn(fields: Fields, environ: dict) -> Answer:
    """Uses the processor for so many seconds."""
    until = time.thread_time() + float(fields["seconds"])
    while time.thread_time() < until:
        pass
    return fast(fields, environ)


def stuck(fields: Fields, environ: dict) -> Answer:
    """Waits in Python, where an exception reaches it."""
    until = time.monotonic() + float(fields["seconds"])
    while time.monotonic() < until:
        time.sleep(0.05)
    return fast(fields, environ)


def held(fields: Fields, environ: dict) -> Answer:
    """Waits in C with the interpreter's lock held."""
    ctypes.PyDLL(None).sleep(int(fields["seconds"]))
    return fast(fields, environ)


def die(fields: Fields, _environ: dict) -> Answer:
    """Ends the process."""
    if fields["how"] == "abort":
        os.abort()
    os._exit(3)


HANDLERS: dict[str, Callable[[Fields, dict], Answer]] = {
    f"/{handler.__name__}": handler
    for handler in (fast, slow, stream, echo, leak, hog, burn, stuck, held, die)
}


def serve(*files: str) -> Callable:
    """The application made of these files, which says in each answer how new they were."""
    version = str(max(os.stat(file).st_mtime_ns for file in files))

    def application(environ: dict, start_response: Callable) -> Answer:
        fields = dict(parse_qsl(environ["QUERY_STRING"]))
        os.write(STARTED, f"{fields['id']}\n".encode())
        body = HANDLERS[environ["PATH_INFO"]](fields, environ)
        headers = [("Content-Type", "text/plain")]
        headers += [("X-Version", version), ("X-Pid", str(os.getpid()))]
        start_response("200 OK", headers)
        return body

    return application
