"""What the filter of system calls leaves: event loops run, and their sockets lead nowhere."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from lm_eval_ext.errors import UserError
from lm_eval_ext.grading.sandbox.launch import BACK_ENDS
from lm_eval_ext.grading.sandbox.pool import Pool
from lm_eval_ext.grading.sandbox.session import Deadline, ProgramError


@pytest.fixture(scope="module", params=BACK_ENDS)
def sandbox(request) -> Iterator[Pool]:
    found = Pool([request.param], size=1)
    try:
        if "seccomp" in found.zygote().report["missing"]:
            pytest.skip("no filter of system calls here")
    except UserError as error:
        pytest.skip(f"{request.param} does not work here: {str(error)[:120]}")
    yield found
    found.close()


def value_of(sandbox: Pool, program: str):
    return sandbox.converse(
        lambda session: session.load(program, ["f"])["f"](1), lambda: Deadline(10)
    )


LOOPS = {
    "run": "async def g(x): return x + 1\ndef f(x): return asyncio.run(g(x))",
    "run twice": "async def g(x): return x + 1\ndef f(x): return asyncio.run(g(asyncio.run(g(0))))",
    "sleep": "async def g(x):\n    await asyncio.sleep(0.01)\n    return x + 1\n"
    "def f(x): return asyncio.run(g(x))",
    "gather": "async def g(x): return x\nasync def h(x):\n"
    "    return sum(await asyncio.gather(*map(g, range(x + 2)))) - 1\n"
    "def f(x): return asyncio.run(h(x))",
    "tasks and a queue": "async def h(x):\n    q = asyncio.Queue()\n"
    "    t = asyncio.create_task(q.get())\n    await q.put(x + 1)\n"
    "    return await asyncio.wait_for(t, 5)\ndef f(x): return asyncio.run(h(x))",
    "a loop of its own": "loop = asyncio.new_event_loop()\nasync def g(x): return x + 1\n"
    "def f(x): return loop.run_until_complete(g(x))",
    "a generator": "async def g(x):\n    yield x\n    yield x + 1\nasync def h(x):\n"
    "    return [v async for v in g(x)][-1]\ndef f(x): return asyncio.run(h(x))",
}


@pytest.mark.parametrize("name", LOOPS)
def test_an_event_loop_runs(sandbox, name: str) -> None:
    assert value_of(sandbox, f"import asyncio\n{LOOPS[name]}") == 2


REFUSED = {
    "a thread for it": "return asyncio.run(asyncio.to_thread(int))",
    "a process": "return asyncio.run(asyncio.create_subprocess_exec('true'))",
    "a connection": "return asyncio.run(asyncio.open_connection('127.0.0.1', 9))",
    "a server": "return socket.create_server(('127.0.0.1', 0))",
    "a pair over the network": "return socket.socketpair(socket.AF_INET)",
    "a pair of another family": "return _socket.socketpair(socket.AF_NETLINK)",
    "a single socket": "return socket.socket(socket.AF_UNIX)",
    "connecting one of a pair": "return pair[0].connect(chr(0) + 'x')",
    "naming one of a pair": "return pair[0].bind(chr(0) + 'x')",
    "passing a file": "return socket.send_fds(pair[0], [b'x'], [1])",
    "a message with an address": "return pair[0].sendto(b'x', chr(0) + 'x')",
    "a setting of one of a pair": "return pair[0].setsockopt(socket.SOL_SOCKET, 7, 1)",
    "typing into a terminal": "return fcntl.ioctl(0, termios.TIOCSTI, b'x')",
    "asking for the bytes that wait": "return fcntl.ioctl(pair[0], termios.FIONREAD, b'0000')",
    "signals on input": "return fcntl.ioctl(pair[0], 0x5452, b'1000')",
}


@pytest.mark.parametrize("name", REFUSED)
def test_a_pair_of_sockets_leads_nowhere(sandbox, name: str) -> None:
    program = (
        "import _socket, asyncio, fcntl, socket, termios\npair = socket.socketpair()\n"
        f"def f(x):\n    {REFUSED[name]}\n"
    )
    with pytest.raises(ProgramError, match="PermissionError|RuntimeError|OSError|gaierror"):
        value_of(sandbox, program)
