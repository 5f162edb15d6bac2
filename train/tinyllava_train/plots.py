"""The loss curve of a run, as a picture."""

from __future__ import annotations

from pathlib import Path

from tinyllava_train.journal import read_journal

FILE_NAME = "loss.png"


def plot_losses(folder: Path) -> Path:
    """Draw ``loss.png`` from a run's ``log.jsonl``: one panel a stage, training and validation."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    rows = read_journal(folder)
    names = list(dict.fromkeys(row["stage"] for row in rows))
    figure, axes = plt.subplots(
        1, len(names), figsize=(4 * len(names), 3.2), squeeze=False, layout="constrained"
    )
    for axis, name in zip(axes[0], names, strict=True):
        stage = [row for row in rows if row["stage"] == name]
        axis.plot([r["step"] for r in stage], [r["loss"] for r in stage], label="training")
        checked = [r for r in stage if "validation_loss" in r]
        if checked:
            steps = [r["step"] for r in checked]
            axis.plot(steps, [r["validation_loss"] for r in checked], "o-", label="validation")
            axis.legend()
        axis.set(title=name, xlabel="step", ylabel="loss", ylim=(0, None))
        axis.grid(visible=True, alpha=0.3)
    path = folder / FILE_NAME
    figure.savefig(path, dpi=110)
    plt.close(figure)
    return path
