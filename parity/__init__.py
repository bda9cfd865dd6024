"""The proof that the two implementations are the same, and its tools."""

# The commands and their modules.
COMMANDS = {
    "accuracy": "parity.accuracy.command",
    "ablation": "parity.studies.ablation",
    "convert": "parity.convert",
    "demo": "parity.demo.command",
    "doctor": "parity.doctor",
    "exports": "parity.exports.command",
    "imbalance": "parity.studies.imbalance",
    "migrate": "parity.migrate",
    "report": "parity.report.page",
    "sensitivity": "parity.studies.sensitivity",
    "update": "parity.studies.update",
}
