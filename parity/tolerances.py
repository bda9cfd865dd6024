"""How far the two sides may differ, each bound with its reason."""

from __future__ import annotations

# Float64 rounding, carried through some hundred steps of Adam and BatchNorm. Measured margins stand in the
# report; a missed alignment of the two frameworks shows at 1e-6 or more within a few steps.
WHOLE_RUN = {
    "step loss": 1e-9,
    "loss": 1e-9,
    "accuracy": 1e-9,
    "val_loss": 1e-9,
    "val_accuracy": 1e-9,
    "learning_rate": 0.0,  # the same events, and the same arithmetic on Python floats
    "test_loss": 1e-8,  # by then the weights carry the whole run's rounding
    "predictions": 1e-8,
    "best_epoch": 0.0,
    "stopped_epoch": 0.0,
    "parameters": 0.0,
}
