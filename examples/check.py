"""Asks a running demo over HTTP what a person would: logs in, uploads, downloads, looks around.

Only the standard library is needed.  Prints one line per question.
"""

from __future__ import annotations

import argparse
import hashlib
import html
import http.cookiejar
import json
import os
import re
import sys
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path

UPLOAD_SIZE = 20 * 1024 * 1024


class Browser:
    """As much of a browser as forms and sessions need."""

    def __init__(self, base: str) -> None:
        """Begins without cookies."""
        self.base = base
        self.cookies = http.cookiejar.CookieJar()
        keep = urllib.request.HTTPCookieProcessor(self.cookies)
        self.opener = urllib.request.build_opener(keep)

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body of a page, redirects followed."""
        return self._send(urllib.request.Request(self.base + path))

    def post(self, path: str, body: bytes, content_type: str) -> tuple[int, bytes]:
        """Status and body of the page the form leads to."""
        headers = {"Content-Type": content_type, "Referer": self.base + path}
        return self._send(urllib.request.Request(self.base + path, body, headers))

    def submit(self, path: str, fields: dict[str, str], file: tuple | None = None) -> bytes:
        """Opens the form at `path` for its token, fills it in, sends it."""
        token = hidden_token(self.get(path)[1])
        body, content_type = multipart({**fields, "csrfmiddlewaretoken": token}, file)
        status, answer = self.post(path, body, content_type)
        expect(status == 200, f"POST {path} answered {status}")
        expect(b"errorlist" not in answer, f"{path} did not take what was filled in")
        return answer

    def _send(self, request: urllib.request.Request) -> tuple[int, bytes]:
        """Sends, and takes an error status as an answer like any other."""
        try:
            with self.opener.open(request, timeout=60) as answer:
                return answer.status, answer.read()
        except urllib.error.HTTPError as error:
            return error.code, error.read()


def expect(holds: bool, otherwise: str) -> None:
    """Ends the question with a reason unless `holds`."""
    if not holds:
        raise AssertionError(otherwise)


def hidden_token(page: bytes) -> str:
    """The CSRF token of a form."""
    found = re.search(rb'name="csrfmiddlewaretoken" value="([^"]+)"', page)
    expect(found is not None, "the page has no form with a CSRF token")
    return found.group(1).decode()


def multipart(fields: dict[str, str], file: tuple | None) -> tuple[bytes, str]:
    """A form as browsers send it: body and Content-Type."""
    boundary = f"boundary{os.urandom(12).hex()}"
    parts = []
    for name, value in fields.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"\r\n\r\n'
        parts.append(f"{head}{value}\r\n".encode())
    if file:
        name, filename, content = file
        disposition = f'Content-Disposition: form-data; name="{name}"; filename="{filename}"'
        head = f"--{boundary}\r\n{disposition}\r\nContent-Type: application/octet-stream\r\n\r\n"
        parts += [head.encode(), content, b"\r\n"]
    parts.append(f"--{boundary}--\r\n".encode())
    return b"".join(parts), f"multipart/form-data; boundary={boundary}"


class Check:
    """The questions, in the order a visit would ask them."""

    def __init__(self, options: argparse.Namespace) -> None:
        """Keeps what the answers are compared with."""
        self.options = options
        self.browser = Browser(options.url)
        self.content = os.urandom(UPLOAD_SIZE)
        self.note = 0

    def home_page_and_its_style_sheet(self) -> None:
        """The application serves the page, httpd the static file."""
        status, page = self.browser.get("/")
        expect(status == 200 and b"Notebook" in page, f"/ answered {status}")
        sheet = re.search(rb'href="(/static/[^"]+\.css)"', page)
        expect(sheet is not None, "the page names no style sheet")
        status, _ = self.browser.get(sheet.group(1).decode())
        expect(status == 200, f"the style sheet answered {status}")

    def django_runs_where_it_should(self) -> None:
        """The process group is the one the configuration names."""
        facts = json.loads(self.browser.get("/where")[1])
        group = self.options.django_group
        expect(facts["process_group"] == group, f"ran in '{facts['process_group']}', not '{group}'")
        if group:
            pids = {json.loads(self.browser.get("/where")[1])["pid"] for _ in range(20)}
            expect(len(pids) <= 2, f"a group of 2 processes answered from {len(pids)}")

    def pages_for_members_ask_for_a_login(self) -> None:
        """Without a session one gets the login form."""
        page = self.browser.get("/notes/new")[1]
        expect(b'name="password"' in page, "a stranger got the form for a new note")

    def admin_login(self) -> None:
        """A wrong password is refused, the right one opens the admin."""
        login = "/admin/login/?next=/admin/"
        wrong = {"username": "admin", "password": "wrong", "next": "/admin/"}
        token = hidden_token(self.browser.get(login)[1])
        body, kind = multipart({**wrong, "csrfmiddlewaretoken": token}, None)
        expect(b"errornote" in self.browser.post(login, body, kind)[1], "a wrong password worked")
        page = self.browser.submit(login, {**wrong, "password": self.options.password})
        expect(b"Site administration" in page, "the right password did not work")

    def a_form_without_its_token_is_refused(self) -> None:
        """Django's CSRF protection sees cookies and headers as it should."""
        body, kind = multipart({"title": "forged"}, None)
        status, _ = self.browser.post("/notes/new", body, kind)
        expect(status == 403, f"answered {status}")

    def adding_a_note_with_20_megabytes(self) -> None:
        """The admin takes a large upload."""
        file = ("attachment", "random.bin", self.content)
        self.browser.submit("/admin/notes/note/add/", {"title": "Large", "text": "one"}, file)
        page = self.browser.get("/admin/notes/note/?q=Large")[1]
        found = re.search(rb"/admin/notes/note/(\d+)/change/", page)
        expect(found is not None, "the new note is not in the list")
        self.note = int(found.group(1))

    def editing_it(self) -> None:
        """What is changed in the admin shows on the site."""
        path = f"/admin/notes/note/{self.note}/change/"
        self.browser.submit(path, {"title": "Large & changed", "text": "two"})
        page = html.unescape(self.browser.get("/")[1].decode())
        expect("Large & changed" in page, "the change does not show")

    def downloading_the_same_bytes(self) -> None:
        """What comes back is what was sent."""
        status, body = self.browser.get(f"/notes/{self.note}/attachment")
        expect(status == 200, f"answered {status}")
        same = hashlib.sha256(body).digest() == hashlib.sha256(self.content).digest()
        expect(same, f"{len(body)} bytes came back, and they differ")

    def the_form_outside_the_admin(self) -> None:
        """An ordinary form keeps a note, in any script people write in."""
        self.browser.submit("/notes/new", {"title": "Grüße, 你好", "text": "short"})
        expect("Grüße, 你好" in self.browser.get("/")[1].decode(), "the note does not show")

    def deleting_the_notes(self) -> None:
        """The admin deletes; the site is as it was."""
        while found := re.search(
            rb"/admin/notes/note/(\d+)/change/", self.browser.get("/admin/notes/note/?q=e")[1]
        ):
            path = f"/admin/notes/note/{found.group(1).decode()}/delete/"
            self.browser.submit(path, {"post": "yes"})
        status, _ = self.browser.get(f"/notes/{self.note}/attachment")
        expect(status == 404, f"a deleted note's attachment answered {status}")

    def logging_out(self) -> None:
        """The session ends."""
        token = hidden_token(self.browser.get("/")[1])
        body = urllib.parse.urlencode({"csrfmiddlewaretoken": token}).encode()
        self.browser.post("/logout", body, "application/x-www-form-urlencoded")
        expect(b"Log in" in self.browser.get("/")[1], "still logged in")

    def flask_runs_embedded(self) -> None:
        """The second application is in httpd's own processes."""
        facts = json.loads(self.browser.get("/flask/where")[1])
        expect(facts["process_group"] == "", f"ran in '{facts['process_group']}'")
        sent = {"text": "é", "numbers": [1, 2, 3]}
        body = json.dumps(sent).encode()
        status, answer = self.browser.post("/flask/echo", body, "application/json")
        expect(status == 200 and json.loads(answer) == sent, f"the echo answered {status}")

    def the_third_application_has_its_own_python(self) -> None:
        """Two versions of Python answer side by side."""
        facts = json.loads(self.browser.get("/python")[1])
        wanted = self.options.second_python
        expect(facts["version"].split()[0] == wanted, f"answered {facts['version']}, not {wanted}")
        expect(facts["process_group"] == "other-python", f"ran in '{facts['process_group']}'")

    def the_error_log_is_quiet(self) -> None:
        """Nothing above went wrong behind the scenes."""
        log = Path(self.options.error_log).read_text(errors="replace")
        loud = re.compile(r"\[(?:\w*:)?(?:emerg|alert|crit|error)\]")
        lines = [line for line in log.splitlines() if loud.search(line)]
        expect(not lines, "\n    ".join([f"{len(lines)} lines", *lines[:20]]))

    def questions(self) -> list[Callable[[], None]]:
        """What is asked, as far as it applies."""
        asked = [
            self.home_page_and_its_style_sheet,
            self.django_runs_where_it_should,
            self.pages_for_members_ask_for_a_login,
            self.admin_login,
            self.a_form_without_its_token_is_refused,
            self.adding_a_note_with_20_megabytes,
            self.editing_it,
            self.downloading_the_same_bytes,
            self.the_form_outside_the_admin,
            self.deleting_the_notes,
            self.logging_out,
            self.flask_runs_embedded,
        ]
        if self.options.second_python:
            asked.append(self.the_third_application_has_its_own_python)
        if self.options.error_log:
            asked.append(self.the_error_log_is_quiet)
        return asked


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="where the demo answers")
    parser.add_argument("--password", required=True, help="the administrator's")
    parser.add_argument("--django-group", default="notebook", help="empty: embedded")
    parser.add_argument("--second-python", help="the version of the third application")
    parser.add_argument("--error-log", help="httpd's, to look for errors in")
    return parser.parse_args()


def main() -> int:
    """Asks everything, and counts."""
    passed = failed = 0
    for question in Check(arguments()).questions():
        name = question.__name__.replace("_", " ")
        try:
            question()
        except Exception as error:  # noqa: BLE001 - whatever happened, the next one is asked
            failed += 1
            print(f"  FAILED  {name}: {error}", flush=True)
        else:
            passed += 1
            print(f"  ok      {name}", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
