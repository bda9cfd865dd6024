"""What went wrong in a user's code, on one line."""

from __future__ import annotations

import re
import sys
import traceback
from pathlib import Path


def told(error: BaseException) -> str:
    """What an exception says, on one line: its kind and the first two lines, without a terminal's colours."""
    plain = re.sub(r"\x1b\[[0-9;]*m", "", str(error))
    lines = [line.strip() for line in plain.splitlines() if line.strip()]
    text = " ".join([f"{type(error).__name__}:", *lines[:2]])
    return text if len(text) <= 300 else f"{text[:299]}…"


def fault_of(error: BaseException, build: str) -> str:
    """What a user's code raised, on one line: the builder, the exception, and where in that code it rose."""
    if isinstance(error, SystemExit):
        code = "" if error.code is None else repr(error.code)
        return f"{build}: calls sys.exit({code}): a builder must return a model"
    ours = Path(__file__).parents[2]
    frames = [
        frame
        for frame in traceback.extract_tb(error.__traceback__)
        if "site-packages" not in frame.filename
        and not frame.filename.startswith(("<", sys.base_prefix))
        and not Path(frame.filename).is_relative_to(ours)
    ]
    place = f" ({frames[-1].name}, {Path(frames[-1].filename).name}:{frames[-1].lineno})" if frames else ""
    return f"{build}: {told(error)}{place}"
