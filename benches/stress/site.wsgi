"""Does what may leak, once per request; the query string says what."""

import gc
import logging
import os
import sys
import tempfile
import threading
import time

import mod_wsgi

NOISE = tempfile.NamedTemporaryFile()
NOISE.write(b"x" * 100_000)
NOISE.flush()
STORE = threading.local()
LOG = logging.getLogger("stress")
LOG.addHandler(mod_wsgi.LogHandler())


class Pieces:
    """An iterable that has to be closed."""

    def __init__(self, pieces):
        self.pieces = iter(pieces)

    def __iter__(self):
        return self

    def __next__(self):
        return next(self.pieces)

    def close(self):
        self.pieces = None


def small(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain"), ("X-Path", environ["PATH_INFO"])])
    return [b"hello"]


def body(environ, start_response):
    stream = environ["wsgi.input"]
    length = len(stream.readline()) + sum(len(line) for line in stream.readlines(1000))
    length += len(stream.read())
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(length).encode()]


def pieces(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Pieces(b"%d" % number for number in range(20))


def written(environ, start_response):
    write = start_response("200 OK", [("Content-Type", "text/plain")])
    for _ in range(5):
        write(b"y" * 1000)
    return []


def file(environ, start_response):
    start_response("200 OK", [("Content-Length", "100000")])
    return environ["wsgi.file_wrapper"](open(NOISE.name, "rb"))


def upload(environ, start_response):
    # Longer than what is received before a thread is taken.
    length = 0
    while block := environ["wsgi.input"].read(10_000):
        length += len(block)
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(length).encode()]


def logged(environ, start_response):
    environ["wsgi.errors"].write("two\nlines and a half")
    print("to the stream of the process", file=sys.stderr)
    LOG.error("from %s", environ["REQUEST_URI"])
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"logged"]


def included(environ, start_response):
    start_response("200 OK", [("Content-Type", "text/html")])
    part = environ["SCRIPT_NAME"].encode() + b"/part?small"
    return Pieces([b"[", b'<!--#include virtual="%s" -->' % part, b"]"])


def late(environ, start_response):
    # Ended by the exception that comes when the time is up, or by itself.
    until = time.monotonic() + 100
    try:
        while time.monotonic() < until:
            time.sleep(0.01)
    except mod_wsgi.RequestTimeout:
        start_response("200 OK", [("Content-Type", "text/plain")])
        return [b"interrupted"]
    return small(environ, start_response)


def unfinished(environ, start_response):
    # More than the client reads.
    start_response("200 OK", [("Content-Type", "text/plain")])
    return Pieces(b"z" * 100_000 for _ in range(100))


def again(environ, start_response):
    start_response("200 OK", [("X-First", "yes")])
    try:
        raise ValueError("on purpose")
    except ValueError:
        start_response("500 Oops", [("Content-Type", "text/plain")], sys.exc_info())
    return [b"oops"]


def raising(environ, start_response):
    raise KeyError("on purpose")


def data(environ, start_response):
    mod_wsgi.request_data()["name"] = [environ["REQUEST_METHOD"]] * 10
    STORE.count = getattr(STORE, "count", 0) + 1
    for metrics in (mod_wsgi.process_metrics, mod_wsgi.server_metrics, mod_wsgi.request_metrics):
        metrics()
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [str(len(mod_wsgi.active_requests)).encode()]


def cycle(environ, start_response):
    # What refers to itself goes with a collection only.
    environ["self"] = environ
    environ["start"] = start_response
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [b"cycle"]


def state(environ, start_response):
    """Tell the process, its memory in KB, and the blocks and objects of this interpreter."""
    gc.collect()
    with open("/proc/self/smaps_rollup") as file:
        memory = next(line.split()[1] for line in file if line.startswith("Private_Dirty"))
    handles = len(os.listdir("/proc/self/fd"))
    figures = [os.getpid(), memory, sys.getallocatedblocks(), len(gc.get_objects()), handles]
    start_response("200 OK", [("Content-Type", "text/plain")])
    return [" ".join(map(str, figures)).encode()]


KINDS = (small, body, pieces, written, file, again, raising, data, cycle, state)
KINDS += (upload, logged, included, late, unfinished)
CHOICE = {kind.__name__: kind for kind in KINDS}


def tell(name, **details):
    """Listens to events."""


if os.environ.get("STRESS_WATCHED"):
    mod_wsgi.start_recording_metrics()
    mod_wsgi.subscribe_events(tell)
    mod_wsgi.subscribe_shutdown(tell)
    if mod_wsgi.process_group:
        mod_wsgi.subscribe_signals(tell)
if not mod_wsgi.application_group:
    import ctypes

    # PR_SET_DUMPABLE: who has changed the user leaves no core otherwise.
    ctypes.CDLL(None).prctl(4, 1)


def application(environ, start_response):
    return CHOICE[environ["QUERY_STRING"]](environ, start_response)
