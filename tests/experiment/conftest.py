from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from loopback import Server


@pytest.fixture(autouse=True)
def _signals_heard() -> Iterator[None]:
    """SIGHUP and SIGINT as a terminal leaves them, where nohup or a background job runs the tests, too."""
    heard = {signal.SIGHUP: signal.SIG_DFL, signal.SIGINT: signal.default_int_handler}
    before = {number: signal.signal(number, handler) for number, handler in heard.items()}
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
