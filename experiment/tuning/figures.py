"""The figures of a search: Optuna's own."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from experiment.system.files import replacing

if TYPE_CHECKING:
    from optuna import Study

# Name of a figure, Optuna's function, and the size of the figure in inches.
FIGURES = {
    "history": ("plot_optimization_history", (7.5, 4.5)),
    "curves": ("plot_intermediate_values", (7.5, 4.5)),
    "slice": ("plot_slice", None),
    "parallel": ("plot_parallel_coordinate", (11.0, 5.0)),
    "importance": ("plot_param_importances", (7.5, 4.0)),
}


def draw(study: Study, out: Path, monitor: str) -> list[str]:
    """Draw a study with completed trials into `out`, a PNG for each of FIGURES; returns their names.

    monitor: what its trials are judged by. A figure that these trials do not admit is left out: that of
    importances where every trial ended alike, say.
    """
    import matplotlib

    matplotlib.use("agg")  # Optuna draws by pyplot, which would look for a window
    import optuna
    from matplotlib import pyplot
    from optuna.visualization import matplotlib as plots

    names = []
    for name, (function, size) in FIGURES.items():
        options: dict[str, Any] = {} if name == "curves" else {"target_name": monitor}
        if name == "importance":
            options["evaluator"] = optuna.importance.FanovaImportanceEvaluator(seed=0)
        with matplotlib.rc_context(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that these functions are experimental, and no two trials differ
            try:
                axes = np.ravel(getattr(plots, function)(study, **options))
            except (RuntimeError, ValueError):
                pyplot.close("all")
                continue
            if name == "curves":
                if (legend := axes[0].get_legend()) is not None:  # none where no trial reported an epoch
                    legend.remove()  # a line for each trial
                axes[0].set(xlabel="epoch", ylabel=monitor)
            for panel in axes:
                panel.xaxis.set_minor_formatter("")
            figure = axes[0].figure
            figure.set_size_inches(size or (4.0 * len(axes), 4.0))
            with replacing(out / f"{name}.png") as path:
                figure.savefig(path, format="png", dpi=130, bbox_inches="tight", facecolor="white")
            pyplot.close(figure)
        names.append(name)
    return names
