"""The loopback server of a page."""

import http.client
import threading

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.leaderboard.serve import page_server


@pytest.fixture
def served(tmp_path):
    """Return a page's file and a function that requests a path from its server."""
    page = tmp_path / "page.html"
    page.write_text("<!doctype html>é", encoding="utf-8")
    with page_server(page, port=0) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()

        def request(path="/", method="GET", host=None):
            connection = http.client.HTTPConnection("127.0.0.1", server.server_port, timeout=10)
            headers = {} if host is None else {"Host": host}
            connection.request(method, path, headers=headers)
            response = connection.getresponse()
            return response, response.read()

        yield page, request, server
        server.shutdown()
        thread.join()


def test_the_page_is_served_and_read_anew(served):
    page, request, _ = served
    response, body = request()
    assert response.status == 200
    assert body.decode() == "<!doctype html>é"
    assert response.headers["Content-Type"] == "text/html; charset=utf-8"
    page.write_text("again")
    assert request("/?x=1")[1] == b"again"


def test_head_has_no_body(served):
    response, body = served[1](method="HEAD")
    assert (response.status, body) == (200, b"")
    assert int(response.headers["Content-Length"]) > 0


@pytest.mark.parametrize("path", ["/page.html", "/../page.html", "//etc/passwd", "/%2e%2e/"])
def test_nothing_else_is_served(served, path):
    assert served[1](path)[0].status == 404


@pytest.mark.parametrize("host", ["evil.example", "evil.example:8765", "127.0.0.1.evil.example:1"])
def test_other_host_names_are_refused(served, host):
    assert served[1](host=host)[0].status == 421


def test_other_methods_are_refused(served):
    assert served[1](method="POST")[0].status == 501


def test_it_listens_on_loopback_only(served):
    assert served[2].server_address[0] == "127.0.0.1"


def test_a_taken_port_and_a_missing_file_are_one_line(served, tmp_path):
    page, _, server = served
    with pytest.raises(UserError, match=f"--port={server.server_port} cannot be had"):
        page_server(page, port=server.server_port)
    with pytest.raises(UserError, match="no such file"):
        page_server(tmp_path / "none.html", port=0)
    with pytest.raises(UserError, match="must be from 0"):
        page_server(page, port=70000)
