"""Word errors over the time one second of speech takes, one dot per model, seed and precision."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from edge.system.files import replacing

if TYPE_CHECKING:
    from recipes.scaling.run import Measured

COLOURS = {"dense-s": "#5b6b7f", "moe": "#d1603d", "dense-l": "#2a7f9e"}
TITLES = {"streaming/ctc": "streaming, CTC only", "streaming/rescoring": "streaming, rescoring"}


def plot(measured: Sequence[Measured], path: Path) -> None:
    """Two panels, CTC only and rescoring; filled dots are fp32, rings int8."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, panels = pyplot.subplots(1, 2, figsize=(9, 4), sharey=True, layout="constrained")
    for axis, (mode, title) in zip(panels, TITLES.items()):
        named = set()
        for m in measured:
            colour, label = COLOURS[m.model], f"{m.model}, {m.parameters / 1e6:.1f} M, {m.precision}"
            axis.scatter(
                1000 * m.rtf,
                m.wer[mode],
                s=70,
                edgecolors=colour,
                facecolors=colour if m.precision == "fp32" else "none",
                linewidths=1.8,
                label=None if label in named else label,
                zorder=3,
            )
            named.add(label)
        axis.set(title=title, xlabel="milliseconds per second of speech, one thread")
        axis.set_xlim(left=0)
        axis.set_ylim(bottom=0)
        axis.grid(alpha=0.25)
    panels[0].set_ylabel("word error rate, human digits, %")
    panels[1].legend(frameon=False, fontsize=8)
    with replacing(path) as temporary:
        figure.savefig(temporary, dpi=130)
    pyplot.close(figure)
