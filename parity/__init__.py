"""The proof that the two implementations are the same, and its tools."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from parity.foreign.check import assert_same as assert_same

# The commands and their modules.
COMMANDS = {
    "accuracy": "parity.accuracy.command",
    "applications": "parity.studies.applications",
    "ablation": "parity.studies.ablation",
    "convert": "parity.convert",
    "converters": "parity.studies.converters",
    "demo": "parity.demo.command",
    "doctor": "parity.doctor",
    "emitter": "parity.studies.emitter",
    "exports": "parity.exports.command",
    "families": "parity.studies.families",
    "imbalance": "parity.studies.imbalance",
    "migrate": "parity.migrate",
    "report": "parity.report.page",
    "sensitivity": "parity.studies.sensitivity",
    "update": "parity.studies.update",
}


def __getattr__(name: str) -> Any:
    # Imported when it is asked for: each of the commands imports this package.
    if name != "assert_same":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from parity.foreign.check import assert_same

    return assert_same
