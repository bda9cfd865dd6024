"""The demo's page in a real browser, what it refuses, and the command on real runs."""

from __future__ import annotations

import io
import os
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from experiment.data.decoding import DEFAULTS, Reading
from experiment.deploy.model_worker import RestartingError
from experiment.system import processes
from parity.demo import command as demo

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
NAMES = ["cat", "dog", "frog", "ship", "bird", "<b>deer</b>"]
RUN = np.array([0.6, 0.25, 0.08, 0.04, 0.02, 0.01])
SMALL = ("--data.name=digits", "--data.limit=60", "--model.filters=[4,4]", "--training.epochs=1", "--gpus=0")


class Model:
    """Stands in for a side's processes: what it says depends on how bright the image is."""

    def __init__(self, name: str, runtime: str, size: int) -> None:
        self.name, self.runtime, self.image_size, self.reading = name, runtime, size, DEFAULTS
        self.class_names, self.run, self.seen = NAMES, Path(f"runs/{name}"), []

    def classify(self, image: np.ndarray) -> np.ndarray:
        self.seen.append(image)
        if image.mean() == 77:
            raise processes.SideError("the model cannot")
        if image.mean() == 78:
            raise RestartingError("the process died and is started again")
        run = RUN if image.mean() > 100 else RUN[::-1]
        return np.stack([run, run + np.array([0, 3e-7, 0, 0, 0, 0])])


@pytest.fixture
def models() -> list[Any]:
    return [Model("Keras", "TFLite", 32), Model("Lightning", "ONNX", 24)]


@pytest.fixture
def client(models: list[Any]) -> Any:
    return demo.build_app(models).test_client()


def picture(colour: tuple[int, int, int], kind: str = "PNG", size: int = 40) -> io.BytesIO:
    buffer = io.BytesIO()
    Image.new("RGB", (size, size), colour).save(buffer, kind)
    buffer.seek(0)
    return buffer


def send(client: Any, content: io.BytesIO, name: str = "photo.png", **more: Any) -> Any:
    return client.post("/classify", data={"image": (content, name)}, **more)


# === What it answers ===


def test_every_model_sees_the_image_in_its_own_size(client: Any, models: list[Any]) -> None:
    found = send(client, picture((200, 150, 100))).json
    assert [model.seen[0].shape for model in models] == [(32, 32, 3), (24, 24, 3)]
    assert (models[0].seen[0] == (200, 150, 100)).all()
    assert [(one["name"], one["runtime"]) for one in found["sides"]] == [
        ("Keras", "TFLite"),
        ("Lightning", "ONNX"),
    ]
    first = found["sides"][0]
    assert [one["class"] for one in first["top"]] == NAMES[:5]
    assert first["top"][1] == {"class": "dog", "run": 0.25, "file": pytest.approx(0.25 + 3e-7)}
    assert first["apart"] == found["between"] == pytest.approx(3e-7)
    assert found["image"].startswith("data:image/png;base64,")


def test_the_largest_difference_is_between_any_two(client: Any, models: list[Any]) -> None:
    models[1].classify = lambda image: np.stack([RUN[::-1], RUN[::-1]])
    assert send(client, picture((200, 200, 200))).json["between"] == pytest.approx(0.59)


def test_every_model_reads_the_image_as_it_was_trained(client: Any, models: list[Any]) -> None:
    models[1].reading = Reading("#102030", 12)
    clear, deep = io.BytesIO(), io.BytesIO()
    Image.new("LA", (40, 40), (200, 0)).save(clear, "PNG")
    Image.fromarray(np.full((40, 40), 2000, np.uint16)).save(deep, "PNG")
    for content in (clear, deep):
        content.seek(0)
        assert send(client, content).status_code == 200
    seen = [[tuple(image[0, 0].tolist()) for image in model.seen] for model in models]
    assert seen == [[(255, 255, 255), (8, 8, 8)], [(16, 32, 48), (125, 125, 125)]]
    too_deep = io.BytesIO()
    Image.fromarray(np.full((40, 40), 5000, np.uint16)).save(too_deep, "PNG")
    too_deep.seek(0)
    refused = send(client, too_deep)
    assert refused.status_code == 415
    assert "values from 5000 to 5000, not 0 to 4095 (data.bits)" in refused.json["error"]


@pytest.mark.parametrize(
    ("content", "code", "message"),
    [
        (io.BytesIO(b"no image at all"), 415, "notes.txt is no image that can be read"),
        (io.BytesIO(picture((1, 2, 3), "PNG", 300).getvalue()[:90]), 415, "is no image"),
        (io.BytesIO(bytes(2**20 + 1)), 413, "larger than 1 MB"),
        (picture((77, 77, 77)), 500, "the model cannot"),
        (picture((78, 78, 78)), 503, "died and is started again"),
    ],
    ids=["text", "truncated", "large", "broken", "dead"],
)
def test_what_it_cannot_show_is_said(models: list[Any], content: io.BytesIO, code: int, message: str) -> None:
    answer = send(demo.build_app(models, megabytes=1).test_client(), content, "notes.txt")
    assert answer.status_code == code
    assert message in answer.json["error"]


def test_an_image_that_would_fill_memory_is_refused(client: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1000)
    assert send(client, picture((9, 9, 9), size=40)).status_code == 415


def test_requests_that_make_no_sense_are_refused(client: Any) -> None:
    assert client.post("/classify").json == {"error": "no image was sent"}
    assert client.get("/classify").status_code == 405
    assert client.get("/static/../demo.py").status_code == 404


def test_another_name_for_this_machine_is_refused(client: Any, models: list[Any]) -> None:
    assert client.get("/", headers={"Host": "evil.example"}).status_code == 400
    assert client.get("/", headers={"Host": "localhost:8000"}).status_code == 200
    public = demo.build_app(models, host="0.0.0.0").test_client()
    assert public.get("/", headers={"Host": "lab.example"}).status_code == 200


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["a", "b", "--port=0"], "--port must be from 1"),
        (["a", "b", "--max-megabytes=0"], "must be above 0"),
        (["nowhere", "nowhere"], "not a run directory"),
    ],
)
def test_mistakes_are_told_in_a_line(argv: list[str], message: str, capsys: pytest.CaptureFixture) -> None:
    with pytest.raises(SystemExit) as refused:
        demo.main(argv)
    assert refused.value.code == 2
    assert message in capsys.readouterr().err


# === In a browser ===


def free_port() -> int:
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def address(models: list[Any]) -> Iterator[str]:
    from waitress.server import create_server

    port = free_port()
    server = create_server(demo.build_app(models, megabytes=1), host="127.0.0.1", port=port)
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{port}/"
    server.close()


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")
def test_the_page_in_a_browser(address: str, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    (tmp_path / "bright.jpg").write_bytes(picture((200, 200, 200), "JPEG").getvalue())
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "large.png").write_bytes(bytes(2**20 + 1))
    with sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        page = browser.new_page()
        complaints: list[str] = []
        page.on("console", lambda message: complaints.append(message.text))
        page.goto(address)
        assert not page.is_visible("#answer")

        page.set_input_files("#file", tmp_path / "bright.jpg")
        page.wait_for_selector("#answer:not([hidden])")
        rows = page.locator("section").nth(0).locator("tbody tr").all_inner_texts()
        assert [row.split("\t")[0] for row in rows] == NAMES[:5]
        assert rows[0].split() == ["cat", "60.00", "%", "60.00", "%"]
        assert page.inner_text("#between") == "3.0e-7"
        assert page.get_attribute("#preview", "alt") == "bright.jpg, as the models see it"
        assert complaints == [], "nothing that the policy on content forbids"

        # A dark one, dropped: its likeliest class has markup for a name.
        page.evaluate(
            """async () => {
              const canvas = new OffscreenCanvas(8, 8); canvas.getContext("2d").fillRect(0, 0, 8, 8);
              const data = new DataTransfer();
              data.items.add(new File([await canvas.convertToBlob()], "dark.png", { type: "image/png" }));
              document.dispatchEvent(new DragEvent("drop", { dataTransfer: data, cancelable: true }));
            }"""
        )
        page.wait_for_selector("#preview[alt^=dark]")
        assert page.locator("section tbody th").nth(0).inner_text() == "<b>deer</b>"

        for name, message in (("notes.txt", "notes.txt is no image"), ("large.png", "larger than 1 MB")):
            page.set_input_files("#file", tmp_path / name)
            page.wait_for_function(
                "m => document.querySelector('#error').textContent.includes(m)", arg=message
            )
            assert not page.is_visible("#answer")
        browser.close()


def posted(request: urllib.request.Request) -> tuple[int, bytes]:
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, answer.read()
    except urllib.error.HTTPError as error:
        return error.code, error.read()


@pytest.mark.slow
def test_the_command_on_real_runs(tmp_path: Path) -> None:
    for side in ("keras", "lightning"):
        processes.start(f"{side}_impl.train", [*SMALL, f"--run.dir={tmp_path / side}"])
    port = free_port()
    runs = [str(tmp_path / side) for side in ("keras", "lightning")]
    command = [sys.executable, "-m", "parity", "demo", *runs, f"--port={port}"]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        address = process.stdout.readline().split()[0]
        body = b"--x\r\nContent-Disposition: form-data; name=image; filename=a.png\r\n\r\n"
        body += picture((200, 100, 50)).getvalue() + b"\r\n--x--\r\n"
        headers = {"Content-Type": "multipart/form-data; boundary=x"}
        request = urllib.request.Request(f"{address}classify", body, headers)
        code, first = posted(request)
        assert code == 200
        assert b'"runtime":"ONNX"' in first
        children = Path(f"/proc/{process.pid}/task")
        for child in (pid for task in children.iterdir() for pid in (task / "children").read_text().split()):
            os.kill(int(child), signal.SIGKILL)
        code, said = posted(request)
        assert (code, b"Keras died and is started again" in said) == (503, True)
        for _ in range(120):  # each of the four is missed when it is asked
            code, said = posted(request)
            if code != 503:
                break
            time.sleep(1)
        assert (code, said) == (200, first)
        with pytest.raises(urllib.error.HTTPError, match="405"):
            urllib.request.urlopen(f"{address}classify")
    finally:
        process.send_signal(2)
        process.communicate(timeout=300)
    assert process.returncode in (0, 130)
