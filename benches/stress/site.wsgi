"""Does what may leak, once per request; the query string says what."""

import gc
import os
import sys
import tempfile
import threading

import mod_wsgi

NOISE = tempfile.NamedTemporaryFile()
NOISE.write(b"x" * 100_000)
NOISE.flush()
STORE = threading.local()


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
    mod_wsgi.process_metrics()
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
CHOICE = {kind.__name__: kind for kind in KINDS}


def tell(name, **payload):
    """Listens to events where the server root says so."""


if os.environ.get("STRESS_EVENTS"):
    mod_wsgi.subscribe_events(tell)


def application(environ, start_response):
    return CHOICE[environ["QUERY_STRING"]](environ, start_response)
