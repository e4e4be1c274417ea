"""``lm-eval-ext leaderboard serve``: show a built page in a browser, to this machine only."""

from __future__ import annotations

import argparse
import shutil
import webbrowser
from contextlib import suppress
from functools import partial
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from lm_eval_ext.errors import UserError

LOOPBACK = "127.0.0.1"
DEFAULT_PORT = 8765


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument(
        "page", type=Path, metavar="PAGE", help="HTML file of lm-eval-ext leaderboard build"
    )
    parser.add_argument(
        "--port",
        type=int,
        default=DEFAULT_PORT,
        help="port on 127.0.0.1, 0 for any that is free (default: %(default)s)",
    )
    parser.add_argument("--open", action="store_true", help="also open it in the default browser")


def run(args: argparse.Namespace) -> int:
    """Serve the page until the program is interrupted."""
    with page_server(args.page, port=args.port) as server:
        address = f"http://{LOOPBACK}:{server.server_port}/"
        print(f"{args.page}: {address} (Ctrl+C ends)", flush=True)
        if args.open:
            webbrowser.open(address)
        server.serve_forever()
    return 0


def page_server(page: Path, *, port: int = DEFAULT_PORT) -> ThreadingHTTPServer:
    """Return a server of one file, which listens on the loopback address.

    Every request reads the file anew, so a page that is built again needs only a reload. Requests
    for anything else, by another method, or under another host's name (as a hostile web page could
    make them, by letting its own name point here) are refused.

    Parameters
    ----------
    page
        The file.
    port
        0 takes any that is free; the result's ``server_port`` says which.

    Raises
    ------
    UserError
        If there is no such file, or the port cannot be had.
    """
    if not page.is_file():
        raise UserError(f"{page}: no such file; make it with lm-eval-ext leaderboard build")
    if not 0 <= port <= 65535:
        raise UserError(f"--port={port} must be from 0 to 65535")
    try:
        return ThreadingHTTPServer((LOOPBACK, port), partial(_PageHandler, page=page))
    except OSError as error:
        raise UserError(
            f"--port={port} cannot be had ({error.strerror}); choose another, or 0 for any"
        ) from error


class _PageHandler(BaseHTTPRequestHandler):
    """Answer GET and HEAD of ``/``."""

    server_version = "lm-eval-ext"
    sys_version = ""

    def __init__(self, *args: Any, page: Path) -> None:
        self._page = page
        super().__init__(*args)

    def do_GET(self) -> None:
        """Send the page."""
        if self._begin():
            # A browser may leave before a large page is through.
            with self._page.open("rb") as file, suppress(ConnectionError):
                shutil.copyfileobj(file, self.wfile)

    def do_HEAD(self) -> None:
        """Send the page's headers."""
        self._begin()

    def _begin(self) -> bool:
        host = self.headers.get("Host", "").rpartition(":")[0] or self.headers.get("Host", "")
        if host not in (LOOPBACK, "localhost"):
            self.send_error(HTTPStatus.MISDIRECTED_REQUEST, "Only under 127.0.0.1 or localhost")
            return False
        if self.path.partition("?")[0] != "/" or not self._page.is_file():
            self.send_error(HTTPStatus.NOT_FOUND)
            return False
        self.send_response(HTTPStatus.OK)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(self._page.stat().st_size))
        self.send_header("Cache-Control", "no-store")
        self.send_header("X-Content-Type-Options", "nosniff")
        self.send_header("X-Frame-Options", "DENY")
        self.send_header("Cross-Origin-Resource-Policy", "same-origin")
        self.send_header("Referrer-Policy", "no-referrer")
        self.end_headers()
        return True

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: one person looks at one page."""
