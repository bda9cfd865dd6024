"""The command line of train: precedence, refusals, resuming, the choice of Keras's backend."""

from __future__ import annotations

import errno
import io
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from experiment import cli
from experiment.cli import Framework, read_config, resolve_backend, train_request
from experiment.config import Experiment
from experiment.errors import ConfigError, DataError, RunError
from experiment.runs.record import Run
from experiment.system import devices, signals
from experiment.system.processes import SideError

PLATEAU_AND_SCHEDULE = ("--training.plateau.patience=2", "--training.schedule.kind=cosine")
FIVE_BLOCKS = ("--model.filters=[1,1,1,1,1]", "--model.block_dropout=[0,0,0,0,0]")

Refusal = Callable[..., str]


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No GPU, every backend installed, none chosen, an empty working directory."""
    monkeypatch.delenv("KERAS_BACKEND", raising=False)
    monkeypatch.setattr(devices, "count_gpus", lambda: 0)
    monkeypatch.setattr(devices, "installed", lambda module: True)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def refusal(capsys: pytest.CaptureFixture[str]) -> Refusal:
    def refusal(*argv: str, framework: Framework = "lightning") -> str:
        with pytest.raises(SystemExit) as caught, cli.refusing():
            train_request(framework, argv)
        said = capsys.readouterr()
        assert caught.value.code == 2
        assert said.out == ""
        assert said.err.startswith("error: ")
        assert len(said.err.splitlines()) <= 2
        return said.err

    return refusal


@pytest.fixture
def config(tmp_path: Path) -> Path:
    path = tmp_path / "some.yaml"
    path.write_text("seed: 7\ntraining: {epochs: 3, schedule: {kind: step, step_epochs: 2}}\n")
    return path


@pytest.fixture
def old_run(tmp_path: Path) -> Path:
    directory = str(tmp_path / "old")
    run = Run.create(
        Experiment.model_validate({"seed": 5, "run": {"dir": directory}, "training": {"epochs": 3}}),
        "lightning",
        "digits",
    )
    (run.checkpoints / "last.ckpt").touch()
    return run.directory


def experiment(*argv: str) -> Experiment:
    return train_request("lightning", argv).experiment


# === Precedence ===


def test_nothing_said_means_the_defaults() -> None:
    assert experiment() == Experiment()


def test_overrides_beat_the_file_and_the_file_beats_the_defaults(config: Path) -> None:
    values = experiment("--config", str(config), "--training.epochs", "9", "--model.filters=[8, 16]")
    expected = {
        "seed": 7,
        "training": {"epochs": 9, "schedule": {"kind": "step", "step_epochs": 2}},
        "model": {"filters": [8, 16]},
    }
    assert values == Experiment.model_validate(expected)


def test_print_config_fed_back_gives_the_same_experiment(
    config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["--config", str(config), "--training.class_weights=[1, 2.5]", "--data.root=/a b", "--gpus=0"]
    with pytest.raises(SystemExit) as caught:
        train_request("lightning", [*argv, "--print-config"])
    assert caught.value.code == 0
    printed = tmp_path / "printed.yaml"
    printed.write_text(capsys.readouterr().out)
    assert experiment("--config", str(printed)) == experiment(*argv)
    assert experiment(*argv).training.class_weights == [1.0, 2.5]


# === Refusals ===


@pytest.mark.parametrize(
    ("argv", "named"),
    [
        (["--training.epoch=3"], "did you mean --training.epochs?"),
        (["--bogus"], "--bogus"),
        (["--training.epochs=x"], "training.epochs"),
        (["--training.epochs=0"], "training.epochs"),
        (["--gpus=-1"], "gpus"),
        (["--augment.kind=bogus"], "'keras', 'torchvision', 'none'"),
        (["--backend=theano"], "'tensorflow', 'jax', 'torch'"),
        (["--training.class_weights=even"], "training.class_weights"),
        (["--config=nowhere.yaml"], "nowhere.yaml"),
        (PLATEAU_AND_SCHEDULE, "training.plateau and training.schedule"),
        (["--model.block_dropout=[0.1]"], "model.block_dropout"),
        (FIVE_BLOCKS, "5 blocks, too many for images of 32 pixels"),
        (["--model.name=vgg16", "--data.image_size=16"], "data.image_size 16"),
        (["--data.name=folder"], "needs --data.root, a directory"),
        (["--data.name=folder", "--data.root=nowhere"], "nowhere"),
        (["--data.name=npz"], "needs --data.root, a .npz file"),
        (["--data.name=npz", "--data.root=."], "no such .npz file"),
        (["--model.name=vgg16", "--model.weights=nowhere.h5"], "model.weights nowhere.h5"),
        (["--gpus=1"], "Use --gpus 0 (the CPU)."),
        (["--gpus=2"], "Use --gpus 0 (the CPU)."),
        (["--data.name=folder", "--data.root=caf\udce9"], r"data.root caf\xe9: the name is not UTF-8"),
        (["--warm-start=caf\udce9"], r"warm_start caf\xe9: the name is not UTF-8"),
    ],
)
def test_a_mistake_is_named_in_two_lines(refusal: Refusal, argv: list[str], named: str) -> None:
    assert named in refusal(*argv)


def test_weights_file_matters_to_vgg16_alone() -> None:
    assert experiment("--model.weights=nowhere.h5").model.name == "cnn"


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("model: {nme: cnn}", "nme"),
        ("model: [1", "parsing"),
        ("sed: 1", "sed"),
        ("[" * 5000, "more than 32 lists"),
        ("data: &a {classes: [*a]}", "*a repeats"),
        ("seed: 1\nseed: 2", "seed stands there twice"),
        ("training: {l2: .inf}", "training.l2"),
        ("training: {l2: 1e400}", "training.l2"),
        ("training: {learning_rate: .nan}", "training.learning_rate"),
        ("training: {epochs: " + "9" * 30 + "}", "training.epochs"),
        ("training: {epochs: " + "9" * 5000 + "}", "4300 digits"),
    ],
    ids=lambda text: text[:24],
)
def test_a_mistake_in_the_file_is_named(refusal: Refusal, config: Path, text: str, named: str) -> None:
    config.write_text(text)
    assert named in refusal("--config", str(config))


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--data.classes=" + "[" * 5000, "data.classes"),
        ("--data.classes=" + "[" * 5000 + "]" * 5000, "data.classes"),
        ("--data.thin={a: &a [*a]}", "data.thin"),
        ("--data.thin={a: 0.5, a: 0.4}", "data.thin"),
        ("--training.l2=1e400", "training.l2"),
        ("--training.l2=nan", "training.l2"),
        ("--training.batch_size=" + "9" * 40, "training.batch_size"),
        ("--model.dense_units=" + "9" * 5000, "model.dense_units"),
        ("--model.filters=[4, 1000000000000]", "filters"),
    ],
    ids=lambda text: text[:24],
)
def test_a_value_without_measure_is_refused_in_a_short_line(
    refusal: Refusal, option: str, named: str
) -> None:
    said = refusal(option)
    assert named in said
    assert len(said) < 600


def test_a_file_may_have_a_mark_of_its_encoding_and_classes_with_numbers(config: Path) -> None:
    config.write_text("data: {classes: [3, 7], thin: {3: 0.5}}", encoding="utf-16")
    data = experiment("--config", str(config), "--training.epochs=2").data
    assert (data.classes, data.thin) == (["3", "7"], {"3": 0.5})


@pytest.mark.parametrize("uri", ["mlruns", "foo://x", "http://"])
def test_an_address_that_is_no_tracking_store_is_refused(refusal: Refusal, uri: str) -> None:
    assert f"mlflow.uri {uri}: " in refusal("--tracking=mlflow", f"--mlflow.uri={uri}")


def test_torchvision_augmentation_is_refused_by_keras_alone(refusal: Refusal) -> None:
    assert "augment.kind torchvision" in refusal("--augment.kind=torchvision", framework="keras")
    assert experiment("--augment.kind=torchvision").augment.kind == "torchvision"


def test_gpus_beyond_those_there_are_refused_and_beyond_one_for_keras_but_on_jax(
    refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "count_gpus", lambda: 2)
    assert experiment("--gpus=1").gpus == 1
    assert experiment("--gpus=2").gpus == 2
    assert "with --backend jax alone" in refusal("--gpus=2", "--backend=torch", framework="keras")
    assert "Use --gpus 2." in refusal("--gpus=3")


def test_an_occupied_run_directory_is_refused_and_left_alone(refusal: Refusal, old_run: Path) -> None:
    assert "--run.overwrite true" in refusal(f"--run.dir={old_run}")
    assert (old_run / "config.yaml").is_file()
    assert experiment(f"--run.dir={old_run}", "--run.overwrite=true").run.overwrite


@pytest.mark.parametrize(
    ("content", "named"),
    [
        (b"training: {epoch: 1}", "training.epoch"),
        (b"a: [", "cannot be read"),
        (b"seed: x", "seed"),
        (b"", "no configuration"),
        (b"- 1", "holds no settings"),
        (b"\x80\x81\x00", "cannot be read"),
        (b"[" * 5000, "cannot be read"),
    ],
)
def test_read_config_refuses_what_is_no_experiment(tmp_path: Path, content: bytes, named: str) -> None:
    path = tmp_path / "config.yaml"
    path.write_bytes(content)
    with pytest.raises(RunError, match=named) as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


# === Resuming ===


@pytest.mark.parametrize("form", ["--resume {}", "--resume={}"])
def test_resume_repeats_the_run_with_more_epochs(old_run: Path, form: str) -> None:
    request = train_request("lightning", [*form.format(old_run).split(), "--training.epochs=8", "--gpus=0"])
    assert request.resume == old_run
    assert request.experiment == Experiment.model_validate({"seed": 5, "gpus": 0, "training": {"epochs": 8}})


def test_resume_refuses_what_would_make_it_another_run(refusal: Refusal, old_run: Path, config: Path) -> None:
    resume = f"--resume={old_run}"
    said = refusal(resume, "--training.batch_size=8", "--seed=2", "--training.epochs=9")
    assert "seed, training.batch_size" in said
    assert "--config" in refusal(resume, "--config", str(config))
    assert "not a run directory" in refusal("--resume=nowhere")
    assert "not a run directory" in refusal(f"--resume={old_run / 'config.yaml'}")
    assert "--resume RUN" in refusal("--from=best")
    assert "needs --data.root" in refusal_of_broken(refusal, old_run)


def test_a_run_without_a_checkpoint_begins_anew(old_run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (old_run / "checkpoints" / "last.ckpt").unlink()
    (old_run / "history.csv").write_text("epoch\n1\n")
    request = train_request("lightning", [f"--resume={old_run}", "--training.epochs=8"])
    assert request.resume is None
    wanted = {"seed": 5, "training": {"epochs": 8}, "run": {"dir": str(old_run), "overwrite": True}}
    assert request.experiment == Experiment.model_validate(wanted)
    assert "begins anew" in capsys.readouterr().err
    (old_run / "history.csv").write_text("epoch\n1\n2\n")  # a checkpoint was there, and is lost
    assert train_request("lightning", [f"--resume={old_run}"]).resume == old_run
    (old_run / "history.csv").unlink()
    (old_run / "metrics.json").touch()
    assert train_request("lightning", [f"--resume={old_run}"]).resume == old_run


def test_a_run_that_is_written_is_neither_resumed_nor_replaced(
    refusal: Refusal, old_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("experiment.system.files.writer", lambda directory: "process 7 on there")
    assert "is being written by process 7 on there" in refusal(f"--resume={old_run}")
    assert "is being written by process 7" in refusal(f"--run.dir={old_run}", "--run.overwrite=true")


def test_keras_goes_on_with_the_backend_that_a_run_was_trained_with(
    refusal: Refusal, old_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Run(old_run).write_json("environment.json", {"framework": "keras", "backend": "jax"})
    monkeypatch.setenv("KERAS_BACKEND", "")
    monkeypatch.delenv("KERAS_BACKEND")
    request = train_request("keras", [f"--resume={old_run}", "--gpus=0"])
    assert resolve_backend(request.experiment) == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "tensorflow")
    assert "KERAS_BACKEND=tensorflow" in refusal(f"--resume={old_run}", framework="keras")


def test_a_resumed_run_needs_no_file_of_weights_but_the_run_that_it_started_from(
    refusal: Refusal, old_run: Path, tmp_path: Path
) -> None:
    config = old_run / "config.yaml"
    config.write_text(f"{{gpus: 0, model: {{name: vgg16, weights: {tmp_path}/gone.h5}}}}")
    assert train_request("lightning", [f"--resume={old_run}"]).resume == old_run
    config.write_text(f"{{gpus: 0, warm_start: {tmp_path}/gone}}")
    assert "say where it lies with --warm-start" in refusal(f"--resume={old_run}")
    moved = tmp_path / "moved"
    moved.mkdir()
    (moved / "metrics.json").touch()
    request = train_request("lightning", [f"--resume={old_run}", f"--warm-start={moved}"])
    assert request.experiment.warm_start == str(moved)


def refusal_of_broken(refusal: Refusal, run: Path) -> str:
    """What is said where the configuration of the run itself cannot be met any more."""
    (run / "config.yaml").write_text("data: {name: folder}")
    return refusal(f"--resume={run}")


# === Keras's backend ===


def test_backend_option_beats_the_environment_and_that_the_default(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(devices, "keras_backend", lambda gpus: ["tensorflow", "jax"][gpus])
    assert resolve_backend(Experiment()) == "tensorflow"
    assert resolve_backend(Experiment(gpus=1)) == "jax"
    monkeypatch.setattr(devices, "count_gpus", lambda: 1)
    assert resolve_backend(Experiment()) == "jax"
    monkeypatch.setenv("KERAS_BACKEND", "torch")
    assert resolve_backend(Experiment()) == "torch"
    assert resolve_backend(Experiment(backend="tensorflow")) == "tensorflow"


def test_a_backend_that_is_unknown_or_not_installed_is_refused(
    refusal: Refusal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("KERAS_BACKEND", "theano")
    assert "KERAS_BACKEND=theano" in refusal(framework="keras")
    assert experiment() == Experiment()
    monkeypatch.setattr(devices, "installed", lambda module: module != "jax")
    assert "jax is not installed" in refusal("--backend=jax", framework="keras")


# === Errors of a command at work ===


def test_guarded_turns_the_users_mistakes_into_exit_code_2(capsys: pytest.CaptureFixture[str]) -> None:
    def failing(error: BaseException) -> Callable[[], int]:
        def command() -> int:
            raise error

        return command

    assert cli.guarded(lambda: 1) == 1
    for error in (ConfigError("no such key"), DataError("no data"), RunError("no run")):
        with pytest.raises(SystemExit) as caught:
            cli.guarded(failing(error))
        assert caught.value.code == 2
        assert capsys.readouterr().err == f"error: {error}\n"
    assert cli.guarded(failing(KeyboardInterrupt())) == 130
    with pytest.raises(ZeroDivisionError):
        cli.guarded(failing(ZeroDivisionError()))
    with pytest.raises(OSError, match="strange"):
        cli.guarded(failing(OSError("strange")))


def test_a_full_disk_is_a_line_and_exit_code_1(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    no_room = OSError(errno.ENOSPC, "No space left on device", "somewhere")
    data = DataError("cannot keep images in here: No space left on device\nname another --data.cache")
    data.__cause__ = no_room

    def failing(error: Exception) -> Callable[[], int]:
        def command() -> int:
            raise error

        return command

    assert [cli.guarded(failing(error)) for error in (no_room, data)] == [1, 1]
    first, *second = capsys.readouterr().err.splitlines()
    assert first == "error: somewhere: No space left on device: free space on its disk"
    assert second == f"error: {data}".splitlines()

    def training() -> int:
        run = Run.create(Experiment.model_validate({"run": {"dir": str(tmp_path / "run")}}), "keras", "none")
        run.write_json("environment.json", {})
        run.write_history([])
        (run.checkpoints / "last.ckpt").touch()
        raise no_room

    assert cli.guarded(training) == 1
    assert capsys.readouterr().err.splitlines()[1] == f"go on with: --resume {tmp_path / 'run'}"
    assert not (tmp_path / "run" / ".lock").exists()


@pytest.mark.parametrize("number", signals.STOPS)
def test_a_signal_ends_a_command_with_its_exit_code(number: int, capsys: pytest.CaptureFixture[str]) -> None:
    before = signal.getsignal(number)

    def command() -> int:
        signal.raise_signal(number)
        pytest.fail("it went on")

    assert cli.guarded(command) == 128 + number
    assert capsys.readouterr().err == "interrupted\n"
    assert signal.getsignal(number) is before


def test_an_ignored_signal_stays_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    before = signal.signal(signal.SIGHUP, signal.SIG_IGN)

    def command() -> int:
        signal.raise_signal(signal.SIGHUP)
        return 0

    try:
        assert cli.guarded(command) == 0
        assert signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGHUP, before)


def test_what_a_terminal_cannot_show_is_escaped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class or a file may bear any name, and where it is printed is no reason to lose a run."""
    shown = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(shown, encoding="ascii", write_through=True))
    assert cli.guarded(lambda: print("caf\u00e9 \U0001f98a", os.fsdecode(b"\xff")) or 0) == 0
    assert shown.getvalue() == b"caf\\xe9 \\U0001f98a \\udcff\n"


def test_a_named_pipe_is_no_configuration(refusal: Refusal, tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.yaml")
    path = str(tmp_path / "a.yaml")
    for argv in (
        ["--config", path],
        [f"--config={path}"],
        ["--config=/dev/zero"],
        ["--seed=1", "--config", path],
    ):
        assert "no regular file" in refusal(*argv)


def test_what_the_shell_hands_over_is_a_configuration() -> None:
    """As in --config <(command)."""
    reading, writing = os.pipe()
    os.write(writing, b"seed: 7\n")
    os.close(writing)
    try:
        assert experiment("--config", f"/dev/fd/{reading}").seed == 7
    finally:
        os.close(reading)


@pytest.mark.parametrize("refused", [True, False])
def test_a_side_that_refuses_is_the_users_mistake_and_one_that_fails_is_not(
    refused: bool, capsys: pytest.CaptureFixture
) -> None:
    def command() -> int:
        raise SideError("the side said so", refused)

    try:
        code = cli.guarded(command)
    except SystemExit as exit:
        code = exit.code
    assert code == (2 if refused else 1)
    assert capsys.readouterr().err == "error: the side said so\n"
