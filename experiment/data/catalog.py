"""Files of published data sets and weights: found where they lie, or downloaded, whole or not at all."""

from __future__ import annotations

import os
import sys
import tarfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from experiment.errors import DataError
from experiment.published import Published
from experiment.system import files
from experiment.system.progress import Bar


def fetch(
    url: str, path: Path | str, checksum: str, timeout: float = 10.0, instead: str = "--data.name digits"
) -> Path:
    """Download a file to `path` unless it is there, resuming what an earlier call began.

    `checksum` is "md5:HEX" or "sha256:HEX", `timeout` in seconds for connecting and for each read,
    `instead` the setting that needs no download, for the error message. Bytes gather in `path`.part, which
    takes its final name only after the checksum agrees and is deleted when it does not. Returns `path`.

    Raises DataError: server not reached, an HTTP error, connection lost, wrong checksum, disk not writable.
    """
    import requests  # here, as pooch: no other command needs either

    path = Path(path)
    part = path.with_name(path.name + ".part")
    way_out = f"put the file at {path} yourself, or use {instead}"
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Both frameworks' runs may start at once, and download once.
        with files.lock(path.parent, wait=f"waiting for another download into {path.parent}"):
            if path.exists():
                if (got := _digest(path, checksum)) != checksum:
                    raise DataError(f"{path}: expected {checksum}, got {got}\ndelete it, or use {instead}")
                return path
            resumed = part.exists() and part.stat().st_size > 0
            _transfer(url, part, timeout)
            if resumed and _digest(part, checksum) != checksum:  # by a server that knows no ranges, it may be
                part.unlink()
                _transfer(url, part, timeout)
            if (got := _digest(part, checksum)) != checksum:
                part.unlink()
                raise DataError(f"{url}: expected {checksum}, got {got}\nrun again, or {way_out}")
            os.replace(part, path)
    except requests.HTTPError as error:
        answer: Any = error.response
        said = f"HTTP {answer.status_code} {answer.reason}"
        raise DataError(f"cannot download {url}: {said}\n{way_out}") from error
    except (OSError, requests.RequestException) as error:
        reason = _reason(error)
        if isinstance(error, OSError) and error.errno in files.FULL:
            reason = f"{part}: {error.strerror}"
            way_out = f"{files.FULL[error.errno]}, and run again: what has come is kept"
        raise DataError(f"cannot download {url}: {reason}\n{way_out}") from error
    return path


def _transfer(url: str, part: Path, timeout: float) -> None:
    """Download what is missing of `part`; raises what requests does."""
    import requests
    from pooch import HTTPDownloader

    have = part.stat().st_size if part.exists() else 0
    headers = {"Accept-Encoding": "identity"} | ({"Range": f"bytes={have}-"} if have else {})
    with part.open("ab") as out, Bar(part.stem, unit="B") as bar:
        try:
            HTTPDownloader(bar, chunk_size=1 << 14, timeout=timeout, headers=headers)(url, out, None)
        except requests.HTTPError as error:
            refused = error.response is None or error.response.status_code != 416
            if refused or not have:  # 416: nothing is left to send, the checksum decides
                raise
        except requests.exceptions.ChunkedEncodingError as error:
            got, total = part.stat().st_size, have + (bar.total or 0)
            raise ConnectionError(
                f"connection lost after {got} of {total} bytes (run again to resume)"
            ) from error


def _reason(error: BaseException) -> str:
    """The first cause of an error in words: requests' own name every library between."""
    while (cause := error.__cause__ or error.__context__) is not None and not isinstance(
        error, ConnectionError
    ):
        error = cause
    return getattr(error, "strerror", None) or str(error) or type(error).__name__


def _digest(path: Path, checksum: str) -> str:
    from pooch import file_hash

    algorithm = checksum.partition(":")[0]
    return f"{algorithm}:{file_hash(str(path), algorithm)}"


def unpacked(record: Published, places: Sequence[Path]) -> list[Path]:
    """The members of a data set's archive where it was unpacked in one of `places`, else none."""
    for place in places:
        paths = [place / member for member in record.members]
        if paths and all(path.is_file() for path in paths):
            return paths
    return []


def contents(name: str, record: Published, places: Sequence[Path]) -> list[bytes]:
    """The contents of a data set's files, in order; raises DataError as `fetch` does.

    An archive may lie in PLACE, packed or not, other files in PLACE/NAME, too; what does not is downloaded
    into the first of `places`.
    """
    if paths := unpacked(record, places):
        return [path.read_bytes() for path in paths]
    folders = [place / part for place in places for part in ((".",) if record.members else (name, "."))]
    paths = [_obtain(url, checksum, folders) for url, checksum in record.files.items()]
    if not record.members:
        return [path.read_bytes() for path in paths]
    with tarfile.open(paths[0]) as archive:  # its checksum is known, and so is what it holds
        found = {
            entry.name: file.read()
            for entry in archive
            if entry.name in record.members and (file := archive.extractfile(entry))
        }
    return [found[member] for member in record.members]


def _obtain(url: str, checksum: str, folders: Sequence[Path]) -> Path:
    """The file in the first folder that has it, else the download, which goes to the first folder."""
    file = url.rsplit("/", 1)[1]
    for folder in folders:
        if (folder / file).is_file() and _digest(folder / file, checksum) == checksum:
            return folder / file
    old = file.replace("-binary.", "-python.")  # CIFAR's pickles, which earlier versions read
    if old != file and (there := [folder / old for folder in folders if (folder / old).is_file()]):
        print(f"{there[0]} is not read: {file}, of the same images, is", file=sys.stderr)
    return fetch(url, folders[0] / file, checksum)
