"""The proof that the two implementations are the same, and its tools."""

COMMANDS = (
    "accuracy",
    "ablation",
    "convert",
    "demo",
    "doctor",
    "exports",
    "imbalance",
    "report",
    "sensitivity",
    "update",
)
