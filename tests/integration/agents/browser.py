"""A headless Chromium, driven over its devtools protocol: enough to use the page as a person does."""

from __future__ import annotations

import base64
import itertools
import json
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
from websockets.sync.client import ClientConnection, connect

DEADLINE_SECONDS = 60.0


class Browser:
    """One page of a browser."""

    def __init__(self, socket: ClientConnection) -> None:
        self._socket = socket
        self._numbers = itertools.count(1)
        self.complaints: list[str] = []
        """Uncaught exceptions, and what the browser refused, such as for the page's policy."""
        self.hosts: set[str] = set()
        """Where requests went."""
        for domain in ("Page", "Runtime", "Log", "Network", "DOM"):
            self.command(f"{domain}.enable")

    def command(self, method: str, **params: Any) -> dict[str, Any]:
        """Carry one command of the protocol out; events that come before its answer are taken in."""
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=DEADLINE_SECONDS))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._take(message.get("method", ""), message.get("params", {}))

    def _take(self, method: str, params: dict[str, Any]) -> None:
        if method == "Runtime.exceptionThrown":
            self.complaints.append(json.dumps(params["exceptionDetails"]))
        elif method == "Log.entryAdded" and params["entry"]["source"] in ("security", "javascript", "violation"):
            self.complaints.append(params["entry"]["text"])
        elif method == "Network.requestWillBeSent":
            self.hosts.add(urlsplit(params["request"]["url"]).netloc)

    def open(self, url: str) -> None:
        """Load a page anew, also where only the fragment differs."""
        self.command("Page.navigate", url="about:blank")
        self.command("Page.navigate", url=url)
        self.until("document.readyState === 'complete' && document.getElementById('ask') !== null")

    def value(self, expression: str) -> Any:
        """Return the value of an expression in the page."""
        answer = self.command("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def until(self, condition: str) -> None:
        """Wait for a condition of the page."""
        deadline = time.monotonic() + DEADLINE_SECONDS
        while not self.value(f"Boolean({condition})"):
            assert time.monotonic() < deadline, f"{condition}: {self.text('body')}"
            time.sleep(0.05)

    def text(self, selector: str) -> str:
        """Return the text that a person sees of the first element."""
        return self.value(f"document.querySelector({json.dumps(selector)}).innerText")

    def type(self, selector: str, text: str) -> None:
        """Write into a field, and press Enter."""
        self.value(f"document.querySelector({json.dumps(selector)}).focus()")
        self.command("Input.insertText", text=text)
        for kind in ("keyDown", "keyUp"):
            self.command("Input.dispatchKeyEvent", type=kind, key="Enter", windowsVirtualKeyCode=13, text="\r")

    def choose(self, selector: str, *paths: Path) -> None:
        """Choose files in a field."""
        root = self.command("DOM.getDocument")["root"]["nodeId"]
        node = self.command("DOM.querySelector", nodeId=root, selector=selector)["nodeId"]
        self.command("DOM.setFileInputFiles", nodeId=node, files=[str(path) for path in paths])

    def width(self, pixels: int) -> None:
        """Be as wide as this."""
        self.command(
            "Emulation.setDeviceMetricsOverride", width=pixels, height=800, deviceScaleFactor=1, mobile=pixels < 600
        )

    def away(self, offline: bool) -> None:
        """Be without a network, or with it again."""
        self.command(
            "Network.emulateNetworkConditions", offline=offline, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    def picture(self, path: Path) -> None:
        """Save what is seen."""
        path.write_bytes(base64.b64decode(self.command("Page.captureScreenshot", format="png")["data"]))


@contextmanager
def chromium(program: str, profile: Path, *more: str) -> Iterator[Browser]:
    """Yield a page of a browser of its own, started with further options."""
    options = ["--headless=new", "--disable-gpu", "--no-sandbox", "--remote-debugging-port=0"]  # root has no sandbox
    process = subprocess.Popen(
        [program, *options, *more, f"--user-data-dir={profile}", "about:blank"], stderr=subprocess.DEVNULL
    )
    try:
        with connect(_debugger(process, profile / "DevToolsActivePort"), max_size=None) as socket:
            yield Browser(socket)
    finally:
        process.terminate()
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _debugger(process: subprocess.Popen[bytes], port_file: Path) -> str:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline and process.poll() is None:
        if port_file.is_file() and (lines := port_file.read_text("ascii").splitlines()):
            targets = httpx.get(f"http://127.0.0.1:{lines[0]}/json").json()
            pages = [target["webSocketDebuggerUrl"] for target in targets if target["type"] == "page"]
            if pages:
                return pages[0]
        time.sleep(0.05)
    raise AssertionError("the browser did not start")
