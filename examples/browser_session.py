"""Uses a running demo with Chromium as a person would: the admin, a large upload, a download.

Speaks WebDriver to chromedriver itself, so only the standard library is needed.  Without
Chromium it says so and ends well: the same questions without a browser are in check.py.
"""

from __future__ import annotations

import argparse
import base64
import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path

import machine
from check import UPLOAD_SIZE, expect
from machine import say

# The name WebDriver gives to a reference to an element, in every implementation.
ELEMENT = "element-6066-11e4-a52e-4f735466cecf"

# No sandbox: root and containers have none.  Nothing is fetched but the pages.
CHROMIUM_FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--window-size=1100,800",
)


class Browser:
    """Chromium, as far as WebDriver's HTTP commands reach."""

    def __init__(self, driver: str, chromium: str, base: str, folder: Path) -> None:
        """Opens a window; what is downloaded goes to `folder`/downloads."""
        self.base = base
        self.downloads = folder / "downloads"
        self.downloads.mkdir()
        preferences = {"download.default_directory": str(self.downloads)}
        options = {
            "binary": chromium,
            "args": [*CHROMIUM_FLAGS, f"--user-data-dir={folder / 'profile'}"],
            "prefs": preferences,
        }
        wanted = {"capabilities": {"alwaysMatch": {"goog:chromeOptions": options}}}
        self.driver = driver
        answer = self._send("POST", f"{driver}/session", wanted)
        self.session = f"{driver}/session/{answer['sessionId']}"

    def _send(self, method: str, url: str, body: dict | None = None) -> object:
        """One WebDriver command."""
        data = None if body is None else json.dumps(body).encode()
        head = {"Content-Type": "application/json"}
        request = urllib.request.Request(url, data, head, method=method)
        try:
            with urllib.request.urlopen(request, timeout=120) as answer:
                return json.load(answer)["value"]
        except urllib.error.HTTPError as error:
            reason = json.load(error)["value"]
            raise AssertionError(reason["message"].splitlines()[0]) from error

    def command(self, name: str, **body: object) -> object:
        """A command with a body, in this window."""
        return self._send("POST", f"{self.session}/{name}", body)

    def ask(self, name: str) -> object:
        """A command without one."""
        return self._send("GET", f"{self.session}/{name}")

    def go(self, path: str) -> None:
        """Opens a page and waits until it is loaded."""
        self.command("url", url=self.base + path)

    def find(self, selector: str) -> str:
        """The element a CSS selector names, waited for."""
        found: list[dict] = []

        def there() -> bool:
            found[:] = self.command("elements", using="css selector", value=selector)
            return bool(found)

        expect(machine.wait_until(there, 20), f"no {selector} on {self.ask('url')}")
        return found[0][ELEMENT]

    def type(self, selector: str, text: str, replacing: bool = False) -> None:
        """Types into a field; the path of a file, into a file field."""
        field = self.find(selector)
        if replacing:
            self.command(f"element/{field}/clear")
        self.command(f"element/{field}/value", text=text)

    def click(self, selector: str) -> None:
        """Clicks; what the next page has to show is waited for by who looks at it."""
        self.command(f"element/{self.find(selector)}/click")

    def see(self, *texts: str) -> None:
        """Waits until a reader sees each of the texts."""
        script = "return document.body ? document.body.innerText : ''"
        for text in texts:

            def shown(text: str = text) -> bool:
                return text in self.command("execute/sync", script=script, args=[])

            expect(machine.wait_until(shown, 30), f"no '{text}' on {self.ask('url')}")

    def photograph(self, path: Path) -> None:
        """Keeps a picture of the window."""
        path.write_bytes(base64.b64decode(self.ask("screenshot")))

    def close(self) -> None:
        """Ends Chromium."""
        self._send("DELETE", self.session)


class Visit:
    """What the visitor does, in order."""

    def __init__(self, options: argparse.Namespace, browser: Browser, folder: Path) -> None:
        """Makes the file that will be uploaded."""
        self.options = options
        self.browser = browser
        self.file = folder / "large file.bin"
        self.file.write_bytes(os.urandom(UPLOAD_SIZE))

    def the_front_page_is_styled(self) -> None:
        """Page and style sheet arrive; the browser complains about neither."""
        self.browser.go("/")
        self.browser.see("Notebook")
        rules = "return [...document.styleSheets].reduce((n, s) => n + s.cssRules.length, 0)"
        expect(self.browser.command("execute/sync", script=rules, args=[]) > 0, "no style rules")

    def logging_in_to_the_admin(self) -> None:
        """The login form leads to the admin's index."""
        self.browser.go("/admin/")
        self.browser.type("#id_username", "admin")
        self.browser.type("#id_password", self.options.password)
        self.browser.click("input[type=submit]")
        self.browser.see("Site administration")

    def adding_a_note_with_20_megabytes(self) -> None:
        """The admin's form takes the file."""
        self.browser.go("/admin/notes/note/add/")
        self.browser.type("#id_title", "By browser")
        self.browser.type("#id_text", "first line\nGrüße, 你好")
        self.browser.type("#id_attachment", str(self.file))
        self.browser.click("input[name=_save]")
        self.browser.see("was added successfully")

    def editing_it(self) -> None:
        """The change shows on the site."""
        self.browser.go("/admin/notes/note/?q=By+browser")
        self.browser.click("th.field-title a")
        self.browser.see("Change note")
        link = self.browser.find(".file-upload a")
        address = self.browser.ask(f"element/{link}/property/href")
        script = "return fetch(arguments[0], {method: 'HEAD'}).then(it => it.status)"
        status = self.browser.command("execute/sync", script=script, args=[address])
        expect(status == 200, f"the admin's link to the file, {address}, answered {status}")
        self.browser.type("#id_title", "By browser, edited", replacing=True)
        self.browser.click("input[name=_save]")
        self.browser.see("was changed successfully")
        self.browser.go("/")
        self.browser.see("By browser, edited", "Grüße, 你好")

    def downloading_the_same_bytes(self) -> None:
        """A click on the link brings the file back as it was."""
        self.browser.click("article a")
        arrived: list[Path] = []

        def complete() -> bool:
            arrived[:] = self.browser.downloads.iterdir()
            return len(arrived) == 1 and arrived[0].suffix == ".bin"

        expect(machine.wait_until(complete, 60), f"no download: {arrived}")
        sums = {hashlib.sha256(path.read_bytes()).digest() for path in (self.file, arrived[0])}
        expect(len(sums) == 1, "the bytes that came back differ")

    def deleting_it(self) -> None:
        """The admin asks, and deletes."""
        self.browser.go("/admin/notes/note/?q=By+browser")
        self.browser.click("th.field-title a")
        self.browser.click("a.deletelink")
        self.browser.see("Are you sure you want to delete")
        self.browser.click("#content input[type=submit]")
        self.browser.see("was deleted successfully")

    def logging_out(self) -> None:
        """The admin is closed again."""
        self.browser.click("#logout-form button")
        self.browser.see("Log in")
        self.browser.go("/admin/")
        self.browser.find("#id_password")

    def steps(self) -> list[Callable[[], None]]:
        """The visit."""
        return [
            self.the_front_page_is_styled,
            self.logging_in_to_the_admin,
            self.adding_a_note_with_20_megabytes,
            self.editing_it,
            self.downloading_the_same_bytes,
            self.deleting_it,
            self.logging_out,
        ]

    def make(self) -> int:
        """Takes every step until one fails; the exit status."""
        for number, step in enumerate(self.steps(), start=1):
            name = step.__name__.replace("_", " ")
            try:
                step()
            except (AssertionError, OSError) as error:
                say(f"  FAILED  browser: {name}: {error}")
                return 1
            finally:
                if self.options.pictures:
                    picture = f"{number}-{step.__name__}.png"
                    self.browser.photograph(self.options.pictures / picture)
            say(f"  ok      browser: {name}")
        return 0


@contextlib.contextmanager
def chromedriver(program: str, folder: Path) -> Iterator[str]:
    """Runs chromedriver; yields where it answers."""
    port = machine.free_port(9515)
    command = [program, f"--port={port}", f"--log-path={folder / 'chromedriver.log'}"]
    # Chromium is in its session, so that nothing stays behind whatever happens.
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, start_new_session=True)
    url = f"http://127.0.0.1:{port}"

    def ready() -> bool:
        with contextlib.suppress(OSError), urllib.request.urlopen(f"{url}/status", timeout=5) as it:
            return json.load(it)["value"]["ready"]
        return False

    try:
        expect(machine.wait_until(ready, 20), "chromedriver does not answer")
        yield url
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGTERM)
        process.wait(timeout=20)


def arguments() -> argparse.Namespace:
    """Reads the command line."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("url", help="where the demo answers")
    parser.add_argument("--password", required=True, help="the administrator's")
    parser.add_argument("--pictures", type=Path, help="a folder for a picture after each step")
    return parser.parse_args()


def main() -> int:
    """Makes the visit, where there is a browser."""
    options = arguments()
    chromium = shutil.which("chromium") or shutil.which("chromium-browser")
    driver = shutil.which("chromedriver") or shutil.which("chromium.chromedriver")
    if not chromium or not driver:
        say("  SKIPPED browser session: no chromium with chromedriver here")
        say("          (Debian: apt install chromium chromium-driver)")
        return 0
    if options.pictures:
        options.pictures.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="mod_wsgi_rs-browser-") as name:
        folder = Path(name)
        try:
            with chromedriver(driver, folder) as url:
                browser = Browser(url, chromium, options.url, folder)
                try:
                    return Visit(options, browser, folder).make()
                finally:
                    browser.close()
        except (AssertionError, OSError) as error:
            return machine.fail(error)


if __name__ == "__main__":
    sys.exit(main())
