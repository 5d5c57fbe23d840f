"""The clients: requests over kept connections, each answer checked byte for byte.

A process of its own.  Reads what to do as a line of JSON from standard input, works until
that ends (or until all its requests are made), and writes what it saw to standard output.
"""

from __future__ import annotations

import contextlib
import gc
import json
import os
import random
import socket
import ssl
import subprocess
import sys
import threading
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).resolve().parent / "site"))

from content import text_for  # noqa: E402 - the application has it, so it lies there

# Beyond this nobody waits for an answer.
PATIENCE = 40.0
# A browser makes a request again, once, if a kept connection turned out to be closed.
TRIES = 2
STATIC = text_for("static", 50_000)
SIZES = (120, 3_000, 90_000)
# How long the slow requests take in any case.
SLOW = 3.0
STUCK = 60.0
# How often a client's own stumbling is looked for.
CLOCK = 0.01


class Kind(NamedTuple):
    """What clients of one sort ask for."""

    # Path and query, without the size and the name every request has.
    target: str
    # How long such an answer takes by itself.
    own: float = 0.0
    # The size of the answer; 0 is one of `SIZES`.
    size: int = 0
    # Whether the request has a body.  It may not be repeated, so each has a connection.
    posts: bool = False


KINDS = {
    "fast": Kind("/app/fast?"),
    "stream": Kind("/app/stream?"),
    "post": Kind("/app/echo?", posts=True),
    "heavy": Kind("/heavy/fast?"),
    "slow": Kind(f"/app/slow?seconds={SLOW}", own=SLOW),
    "warm-app": Kind("/app/slow?seconds=0.3", own=0.3, size=120),
    "warm-heavy": Kind("/heavy/slow?seconds=0.3", own=0.3, size=120),
    "second": Kind("/app/slow?seconds=1", own=1.0, size=120),
    "static": Kind("/static/file?"),
    "leak": Kind("/app/leak?bytes=1000000", size=120),
    "burn": Kind("/app/burn?seconds=0.03", own=0.03, size=120),
    "stuck": Kind(f"/app/stuck?seconds={STUCK}", own=STUCK),
    "held": Kind(f"/app/held?seconds={int(STUCK)}", own=STUCK),
    "hog": Kind("/app/hog?"),
    "exit": Kind("/app/die?how=exit"),
    "abort": Kind("/app/die?how=abort"),
}


@dataclass(frozen=True)
class Clients:
    """So many clients of one kind."""

    kind: str
    count: int
    # Between an answer and the next request of the same client, in seconds.
    pause: float = 0.015
    # Requests of each; 0 is without end.
    requests: int = 0


@dataclass(frozen=True)
class Record:
    """One request, whichever way it ended."""

    kind: str
    # One name per try: they differ so that the application's notes tell them apart.
    names: list[str]
    began: float
    ended: float
    # "ok", or what was wrong.
    outcome: str
    # What the answer said about its process and its script.
    pid: int = 0
    version: int = 0

    @property
    def is_good(self) -> bool:
        """Whether it was answered, and as it should be."""
        return self.outcome == "ok"

    @property
    def beyond(self) -> float:
        """How much longer than by itself it took, in seconds."""
        return self.ended - self.began - KINDS[self.kind].own


class Answer(NamedTuple):
    """A whole answer."""

    status: int
    headers: dict[str, str]
    body: bytes


class Broken(Exception):
    """A connection that ended before the answer did; `how` says where."""

    def __init__(self, how: str) -> None:
        super().__init__(how)
        self.how = how


class Connection:
    """A connection to httpd, for several requests."""

    def __init__(self, port: int, tls: bool) -> None:
        try:
            plain = socket.create_connection(("127.0.0.1", port), PATIENCE)
            plain.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self.socket = tls_context().wrap_socket(plain) if tls else plain
        except OSError as error:
            raise Broken("refused") from error
        self.buffer = b""
        self.used = 0
        # Whether anything of the answer has come.
        self.has_begun = False

    def ask(self, request: bytes) -> Answer:
        """Sends a request and reads its answer."""
        self.used += 1
        self.buffer = b""
        self.has_begun = False
        try:
            self.socket.sendall(request)
        except TimeoutError as error:
            raise Broken("timeout") from error
        except OSError:
            # The answer may have been sent before the connection was closed.
            pass
        return self.read_answer()

    def read_answer(self) -> Answer:
        """Reads the head, then the body as the head announces it."""
        head = self.until(b"\r\n\r\n").decode("latin-1").split("\r\n")
        pairs = (line.partition(":") for line in head[1:] if line)
        headers = {name.lower(): value.strip() for name, _, value in pairs}
        if headers.get("transfer-encoding") == "chunked":
            body = b"".join(iter(self.chunk, b""))
        elif "content-length" in headers:
            body = self.exactly(int(headers["content-length"]))
        else:
            raise Broken("an answer without an end")
        return Answer(int(head[0].split()[1]), headers, body)

    def chunk(self) -> bytes:
        """One chunk of a body; the last one is empty."""
        size = int(self.until(b"\r\n").strip(), 16)
        return self.exactly(size + 2)[:-2]

    def until(self, mark: bytes) -> bytes:
        """What comes up to `mark`, that included."""
        while mark not in self.buffer:
            self.more()
        found, _, self.buffer = self.buffer.partition(mark)
        return found + mark

    def exactly(self, size: int) -> bytes:
        """So many bytes."""
        while len(self.buffer) < size:
            self.more()
        found, self.buffer = self.buffer[:size], self.buffer[size:]
        return found

    def more(self) -> None:
        """Receives what there is."""
        how = "short" if self.has_begun else "closed"
        try:
            piece = self.socket.recv(262_144)
        except TimeoutError as error:
            raise Broken("timeout") from error
        except OSError as error:
            raise Broken(how) from error
        if not piece:
            raise Broken(how)
        self.has_begun = True
        self.buffer += piece

    def close(self) -> None:
        """Ends the connection."""
        with contextlib.suppress(OSError):
            self.socket.close()


def tls_context() -> ssl.SSLContext:
    """Takes the certificate the runner made for itself."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Client(threading.Thread):
    """One client: a request, a pause, a request."""

    def __init__(self, orders: Clients, number: int, server: Server, stop: threading.Event) -> None:
        super().__init__(daemon=True)
        self.orders = orders
        self.kind = KINDS[orders.kind]
        self.name = f"{orders.kind}-{number}"
        self.server = server
        self.stop = stop
        # What it asks for depends on nothing but its name.
        self.random = random.Random(self.name)
        self.connection: Connection | None = None
        self.lifetime = 0
        self.records: list[Record] = []

    def run(self) -> None:
        """Works until it is told to stop."""
        made = 0
        while not self.stop.is_set():
            self.records.append(self.request(f"{self.server.run}-{self.name}-{made}"))
            made += 1
            if made == self.orders.requests:
                return
            pause = self.orders.pause
            # A server that refuses is asked less often.
            if self.records[-1].outcome == "refused":
                pause = max(pause, 0.05)
            self.stop.wait(pause)
        self.drop()

    def request(self, name: str) -> Record:
        """Makes one request, a second time where a browser would."""
        size = self.kind.size or self.random.choice(SIZES)
        names: list[str] = []
        began = time.monotonic()
        while True:
            names.append(f"{name}.{len(names)}")
            reused = self.connection is not None
            try:
                outcome, answer = self.attempt(names[-1], size)
            except Broken as broken:
                self.drop()
                may_repeat = broken.how == "closed" and reused and not self.kind.posts
                if may_repeat and len(names) < TRIES:
                    continue
                return Record(self.orders.kind, names, began, time.monotonic(), broken.how)
            return Record(
                self.orders.kind,
                names,
                began,
                time.monotonic(),
                outcome,
                int(answer.headers.get("x-pid", 0)),
                int(answer.headers.get("x-version", 0)),
            )

    def attempt(self, name: str, size: int) -> tuple[str, Answer]:
        """One try: the verdict on the answer, and the answer."""
        if self.connection is None:
            self.connection = Connection(self.server.port, self.server.tls)
            self.lifetime = self.random.randint(1, 150)
        target = f"{self.kind.target}&size={size}&id={name}"
        body = text_for(name, size) if self.kind.posts else b""
        answer = self.connection.ask(head(target, body) + body)
        closes = answer.headers.get("connection", "").lower() == "close"
        if closes or self.kind.posts or self.connection.used >= self.lifetime:
            self.drop()
        if answer.status != 200:
            return f"status {answer.status}", answer
        expected = STATIC if self.orders.kind == "static" else text_for(name, size)
        return ("ok" if answer.body == expected else "corrupt"), answer

    def drop(self) -> None:
        """The next request needs another connection."""
        if self.connection:
            self.connection.close()
        self.connection = None


def head(target: str, body: bytes) -> bytes:
    """The head of a request."""
    lines = [f"{'POST' if body else 'GET'} {target} HTTP/1.1", "Host: localhost"]
    if body:
        lines += [f"Content-Length: {len(body)}", "Connection: close"]
    return "\r\n".join([*lines, "", ""]).encode()


class Server(NamedTuple):
    """Whom the clients ask."""

    port: int
    tls: bool
    # Sets the names of one load's requests apart from those of another.
    run: str


class Clock(threading.Thread):
    """Notices how long this process was kept from working by others."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.worst = 0.0

    def run(self) -> None:
        """Looks again and again."""
        while True:
            before = time.monotonic()
            time.sleep(CLOCK)
            self.worst = max(self.worst, time.monotonic() - before - CLOCK)


class Seen(NamedTuple):
    """What the clients of a load saw."""

    records: list[Record]
    # The longest these processes were kept from working, in seconds.
    stumble: float


class Load:
    """Clients at work, in processes of their own, one per list of `groups`."""

    def __init__(self, port: int, run: str, groups: list[list[Clients]], tls: bool = False) -> None:
        self.processes = [start(Server(port, tls, f"{run}{n}"), g) for n, g in enumerate(groups)]

    def stop(self) -> Seen:
        """Lets each finish its request; what they saw."""
        for process in self.processes:
            process.stdin.close()
        return self.finish()

    def finish(self) -> Seen:
        """Waits for clients that end by themselves."""
        records: list[Record] = []
        stumble = 0.0
        for process in self.processes:
            report = json.loads(process.stdout.read())
            process.wait(PATIENCE)
            records += [Record(**record) for record in report["records"]]
            stumble = max(stumble, report["stumble"])
        return Seen(records, stumble)

    def kill(self) -> None:
        """Ends those that have not ended."""
        for process in self.processes:
            if process.poll() is None:
                process.kill()
                process.wait()


def start(server: Server, group: list[Clients]) -> subprocess.Popen:
    """A process with these clients."""
    command = [sys.executable, "-B", __file__]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    orders = {"server": list(server), "clients": [asdict(clients) for clients in group]}
    process.stdin.write(json.dumps(orders).encode() + b"\n")
    process.stdin.flush()
    return process


def main() -> None:
    """The clients' process."""
    orders = json.loads(sys.stdin.buffer.readline())
    # Threads that wait for one another's turn would be taken for a slow server.
    sys.setswitchinterval(0.001)
    gc.disable()
    stop = threading.Event()
    server = Server(*orders["server"])
    threads = []
    for order in orders["clients"]:
        clients = Clients(**order)
        threads += [Client(clients, number, server, stop) for number in range(clients.count)]
    clock = Clock()
    clock.start()
    for thread in threads:
        thread.start()
    if all(thread.orders.requests for thread in threads):
        threading.Thread(target=wait_for_end_of_input, args=[stop], daemon=True).start()
    else:
        wait_for_end_of_input(stop)
    for thread in threads:
        thread.join(PATIENCE + STUCK)
    records = [asdict(record) for thread in threads for record in thread.records]
    json.dump({"records": records, "stumble": clock.worst}, sys.stdout)


def wait_for_end_of_input(stop: threading.Event) -> None:
    """The runner closes standard input when there has been enough."""
    while os.read(0, 1):
        pass
    stop.set()


if __name__ == "__main__":
    main()
