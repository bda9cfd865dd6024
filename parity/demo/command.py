"""python -m parity demo RUN_KERAS RUN_LIGHTNING: drop an image, see what both sides and their exports say.

Serves one page on this machine: each side's five most likely classes, from the run and from the file that
was exported from it, and how far they are apart.
"""

from __future__ import annotations

import argparse
import base64
import io
import ipaddress
import tempfile
import threading
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from experiment import cli
from experiment.cli import Framework
from experiment.data.decoding import UnfitError, decode
from experiment.deploy.exported import SIDES
from experiment.deploy.model_worker import Lasting, RestartingError, Worker
from experiment.deploy.prediction import SUFFIXES, TrainedRun
from experiment.errors import RunError
from experiment.system import processes

PAGE = Path(__file__).parent / "page"
TOP = 5
MEGABYTES = 10
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self' data:; "
    "form-action 'none'; frame-ancestors 'none'; base-uri 'none'"
)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the command; returns its exit code."""
    parser = cli.PlainParser(prog="parity demo", description=(__doc__ or "").split("\n\n")[1])
    parser.add_argument("keras", type=Path, metavar="RUN_KERAS", help="a finished run of the Keras side")
    parser.add_argument("lightning", type=Path, metavar="RUN_LIGHTNING", help="one of the Lightning side")
    parser.add_argument("--host", default="127.0.0.1", help="where to listen (default: this machine alone)")
    parser.add_argument("--port", type=int, default=8000, help="port to listen on (default 8000)")
    parser.add_argument(
        "--max-megabytes", type=float, default=MEGABYTES, help=f"largest image file (default {MEGABYTES})"
    )
    arguments = parser.parse_args(argv)
    if not 0 < arguments.port < 65536:
        parser.error("--port must be from 1 to 65535")
    if not arguments.max_megabytes > 0:
        parser.error("--max-megabytes must be above 0")
    return cli.guarded(lambda: demo(arguments))


def demo(arguments: argparse.Namespace) -> int:
    """Serve until interrupted; raises RunError for runs that cannot be shown together."""
    try:
        from waitress.server import create_server
    except ImportError as error:
        raise RunError("the demo needs flask and waitress: pip install flask waitress") from error
    runs: dict[Framework, Path] = {side: getattr(arguments, side) for side in SIDES}
    names = {side: TrainedRun.open(path, side).class_names for side, path in runs.items()}
    if names["keras"] != names["lightning"]:
        raise RunError(f"{runs['keras']} and {runs['lightning']} do not tell the same classes apart")
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="parity-demo-")))
        models = [stack.enter_context(Served(side, path, folder)) for side, path in runs.items()]
        try:
            server = create_server(
                build_app(models, arguments.host, arguments.max_megabytes),
                host=arguments.host,
                port=arguments.port,
            )
        except OSError as error:
            where = f"{arguments.host}:{arguments.port}"
            raise RunError(f"cannot listen on {where} ({error.strerror}): name another --port") from error
        print(f"http://{arguments.host}:{arguments.port}/  (ends with Ctrl-C)", flush=True)
        server.run()  # ends on Ctrl-C by itself
    return 0


class Served:
    """One side's run and the file exported from it, each in a process of its own."""

    def __init__(self, side: Framework, run: Path, folder: Path) -> None:
        self.name, self.runtime = SIDES[side]
        self.side: Framework = side
        self.run, self.folder = run, folder
        self._lock, self._stack = threading.Lock(), ExitStack()

    def __enter__(self) -> Served:
        with self._stack as stack:
            file = self.folder / f"model{SUFFIXES[self.side]}"
            processes.start(f"{self.side}_impl.export", [str(self.run), f"--output={file}"])
            self._workers = [
                stack.enter_context(Lasting(name, partial(Worker, self.side, model, threads=1)))
                for name, model in ((self.name, self.run), (self.runtime, file))
            ]
            first = self._workers[0]
            self.class_names, self.image_size, self.reading = (
                first.class_names,
                first.image_size,
                first.reading,
            )
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *error: Any) -> None:
        self._stack.close()

    def classify(self, image: np.ndarray) -> np.ndarray:
        """(2, classes): the run's probabilities and the file's, of one uint8 (S, S, 3) image.

        Raises RestartingError while a process that died is started again, SideError where one cannot answer.
        """
        with self._lock:
            path = self.folder / f"{self.side}.npy"
            np.save(path, image[None])
            return np.concatenate([worker.predict(path, 1) for worker in self._workers])


def build_app(models: Sequence[Served], host: str = "127.0.0.1", megabytes: float = MEGABYTES):
    """The Flask application: the page at /, and POST /classify with one file named image."""
    from flask import Flask, Response, jsonify, render_template, request
    from werkzeug.exceptions import HTTPException, RequestEntityTooLarge

    app = Flask(__name__, static_folder=str(PAGE), static_url_path="/static", template_folder=str(PAGE))
    app.config["MAX_CONTENT_LENGTH"] = int(megabytes * 2**20)
    if _is_loopback(host):  # another site's name that is made to point here gets no answer
        app.config["TRUSTED_HOSTS"] = ["127.0.0.1", "localhost", "[::1]"]

    @app.get("/")
    def page() -> str:
        return render_template("index.html.jinja", models=models, megabytes=megabytes)

    @app.post("/classify")
    def classify() -> tuple[Response, int] | Response:
        if "image" not in request.files:
            return jsonify(error="no image was sent"), 400
        file = request.files["image"]
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("error", Image.DecompressionBombWarning)
                content = file.read()
                images = [
                    decode(io.BytesIO(content), model.image_size, model.reading).pixels for model in models
                ]
        except Exception as error:  # decoders raise whatever a damaged file leads them into
            why = f": {error}" if isinstance(error, UnfitError) else ""
            return jsonify(error=f"{file.filename or 'the file'} is no image that can be read{why}"), 415
        return jsonify(answer(models, images))

    @app.errorhandler(RequestEntityTooLarge)
    def too_large(_: RequestEntityTooLarge) -> tuple[Response, int]:
        return jsonify(error=f"the file is larger than {megabytes:g} MB (--max-megabytes)"), 413

    @app.errorhandler(processes.SideError)
    def broken(error: processes.SideError) -> tuple[Response, int]:
        return jsonify(error=str(error)), 500

    @app.errorhandler(RestartingError)
    def restarting(error: RestartingError) -> tuple[Response, int, dict[str, str]]:
        return jsonify(error=str(error)), 503, {"Retry-After": "5"}

    @app.errorhandler(HTTPException)
    def refused(error: HTTPException) -> tuple[Response, int]:
        return jsonify(error=error.description), error.code or 500

    @app.after_request
    def guard(response: Response) -> Response:
        response.headers["Content-Security-Policy"] = POLICY
        response.headers["X-Content-Type-Options"] = "nosniff"
        return response

    return app


def answer(models: Sequence[Served], images: Sequence[np.ndarray]) -> dict[str, Any]:
    """The answer of every model to an image, as each of them reads it: (S, S, 3) uint8."""
    found = [model.classify(image) for model, image in zip(models, images, strict=True)]
    every = np.concatenate(found)
    return {
        "image": _png(images[0]),
        "between": float(np.abs(every[:, None] - every[None]).max()),
        "sides": [
            {
                "name": model.name,
                "runtime": model.runtime,
                "apart": float(np.abs(both[0] - both[1]).max()),
                "top": [
                    {"class": model.class_names[i], "run": float(both[0, i]), "file": float(both[1, i])}
                    for i in np.argsort(-both[0])[:TOP]
                ],
            }
            for model, both in zip(models, found, strict=True)
        ],
    }


def _png(image: np.ndarray) -> str:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "PNG")
    return f"data:image/png;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"
