from __future__ import annotations

import signal
import threading
from collections.abc import Iterator

import pytest
from loopback import Server


@pytest.fixture(autouse=True)
def _hangups_heard() -> Iterator[None]:
    """SIGHUP as a terminal leaves it, where nohup runs the tests, too."""
    before = signal.signal(signal.SIGHUP, signal.SIG_DFL)
    yield
    signal.signal(signal.SIGHUP, before)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    with Server() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()
