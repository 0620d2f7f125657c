"""The trackers of a run: TensorBoard and, on request, Weights & Biases. Both receive the same data.

A tracker has `scalars(step, {name: value})`, `image(step, name, uint8 [h, w, 3])`, `table(step, name, {word: value})`
and `close()`. A run's own files do not depend on them.
"""

import json
import re
import secrets
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from jaxvit.errors import UserError
from jaxvit.runtime import drawing, escape, files, packages
from jaxvit.runtime.console import warn
from jaxvit.step import multi_label

FINAL = ("model", "data", "pretrained", "parameters", "trainable_parameters", "gmacs", "train_seconds",
         "seconds_per_epoch", "images_per_second", "peak_memory_bytes")  # fmt: skip
MOST_NAMES = 60  # next to a confusion matrix


class Tracker(Protocol):
    """The interface of a tracker."""

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of a step."""

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture, uint8 [h, w, 3]."""

    def table(self, step: int, name: str, rows: Mapping[str, Any]) -> None:
        """Names with their values."""

    def close(self) -> None:
        """Flushes."""


class TensorBoard:
    """Event files in `directory`; what an earlier life of the run wrote from `purge_step` on is hidden."""

    def __init__(self, directory: Path, purge_step: int | None = None):
        # Imported here: only training writes events.
        from tensorboardX import SummaryWriter

        # absolute: it takes what stands before a colon ("gs:", "s3:") for the name of a store
        self._writer = SummaryWriter(str(directory.absolute()), purge_step=purge_step)

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of a step."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, step)

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture, uint8 [h, w, 3]."""
        self._writer.add_image(name, image, step, dataformats="HWC")

    def table(self, step: int, name: str, rows: Mapping[str, Any]) -> None:
        """Names with their values, as Markdown."""
        lines = [f"| {escape.markdown(word)} | {escape.markdown(_text(value))} |" for word, value in rows.items()]
        self._writer.add_text(name, "\n".join(["| | |", "| --- | --- |", *lines]), step)

    def close(self) -> None:
        """Flushes."""
        self._writer.close()


class WeightsAndBiases:
    """A run of Weights & Biases whose id is kept in the workdir, so that a resumed run continues it."""

    def __init__(self, workdir: Path, config: Mapping[str, Any], *, project: str, name: str | None, mode: Any):
        """`mode` is "online", or "offline": files below workdir/wandb, for `wandb sync`."""
        try:
            import wandb
        except ImportError:
            raise UserError("wandb.project is set, but wandb is not installed\npip install 'jaxvit[wandb]'") from None
        directory = workdir / "wandb"
        directory.mkdir(exist_ok=True)
        known = run_id(workdir)
        try:
            self._run: Any = wandb.init(
                project=project, name=escape.plain(name or workdir.resolve().name), dir=str(workdir), id=known,
                config=json.loads(json.dumps(dict(config)), object_hook=_visible),
                resume="allow", mode=mode, settings=wandb.Settings(silent=True, console="off"),
            )  # fmt: skip
        except Exception as error:  # no key, no network, ...: wandb has its own exceptions
            said = escape.message(error, 200)
            raise UserError(
                f"Weights & Biases cannot start: {said}\nrun `wandb login`, or write files: --config.wandb.mode=offline"
            ) from None
        self._run.define_metric("*", step_metric="step")  # a resumed run repeats steps, which wandb's own may not
        self._module = wandb

    def scalars(self, step: int, values: Mapping[str, float]) -> None:
        """Metrics of a step."""
        self._run.log({"step": step, **values})

    def image(self, step: int, name: str, image: np.ndarray) -> None:
        """A picture, uint8 [h, w, 3]."""
        self._run.log({"step": step, name: self._module.Image(image)})

    def table(self, step: int, name: str, rows: Mapping[str, Any]) -> None:
        """Names with their values; they are also the run's summary."""
        self._run.summary.update({f"{name}/{word}": value for word, value in rows.items()})
        data = [[word, _text(value)] for word, value in rows.items()]
        self._run.log({"step": step, name: self._module.Table(columns=["word", "value"], data=data)})

    def close(self) -> None:
        """Waits until everything is written."""
        self._run.finish()


def run_id(workdir: Path) -> str:
    """Returns the id of the run of `workdir` in Weights & Biases, from workdir/wandb/id.json, or a new one.

    A copy of a workdir is another run: its file names a directory, not its own, in which that run still is. A workdir
    that was moved, so that nothing is left there, stays the same run.
    """
    path, own = workdir / "wandb" / "id.json", str(workdir.resolve())
    found = _read_id(path)
    if found is None and path.exists():
        warn(f"{path} is damaged; the run continues as a new one in Weights & Biases")
    home = found.get("workdir") if found else None
    if found and home and home != own:
        other = _read_id(Path(home) / "wandb" / "id.json")
        if other and other["id"] == found["id"]:
            warn(f"{workdir} is a copy of {home}; it becomes a new run in Weights & Biases")
            found = None
    known = found["id"] if found else secrets.token_hex(4)
    files.write(path, json.dumps({"id": known, "workdir": own}).encode())
    return known


def _read_id(path: Path) -> dict[str, Any] | None:
    """What id.json holds, or None where it is missing or damaged; once it was the id alone."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return None
    found = {"id": found} if isinstance(found, str) else found
    good = isinstance(found, dict) and isinstance(found.get("id"), str)
    good = good and re.fullmatch(r"[A-Za-z0-9_-]{1,64}", found["id"])
    return found if good and isinstance(found.get("workdir", ""), str) else None


def check_packages(config: Mapping[str, Any]) -> None:
    """Raises UserError where a package that the end of a run needs is not installed."""
    packages.require("tensorboardX", "matplotlib", *(["wandb"] if config["wandb"]["project"] else []))


def make_trackers(workdir: Path, step: int, config: Mapping[str, Any]) -> list[Tracker]:
    """Returns the trackers that the resolved config asks for; `step` is the first that will be written."""
    trackers: list[Tracker] = [TensorBoard(workdir / "events", purge_step=step or None)]
    words = config["wandb"]
    if words["project"]:
        trackers.append(
            WeightsAndBiases(workdir, config, project=words["project"], name=words["name"], mode=words["mode"])
        )
    return trackers


def show(
    trackers: Sequence[Tracker],
    described: Mapping[str, Any],
    samples: Mapping[str, np.ndarray],
    logits: np.ndarray,
    labels: np.ndarray,
    index: np.ndarray,
    class_names: Sequence[str],
    thresholds: Any = multi_label.USUAL,
) -> None:
    """Sends the end of a run: the final table, the sample images, the confusion matrix of the test split.

    Args:
      trackers: where to.
      described: the content of summary.json.
      samples: that of samples.npz.
      logits: float [n, num_classes], of the test split.
      labels: int [n]; or of several labels per image 0 and 1 [n, num_classes], of which there is no confusion matrix.
      index: int [n], places in the data set's test split.
      class_names: of all classes.
      thresholds: of several labels per image, on the probability.
    """
    step, said = int(described["final"]["step"]), logits.argmax(axis=-1)
    several = labels.ndim == 2
    right = multi_label.are_right(logits, labels, thresholds) if several else said == labels
    rows = {word: described.get(word) for word in FINAL} | dict(described["final"])
    at = {int(k): i for i, k in enumerate(index)}
    wrong = np.array([not right[at[int(k)]] for k in samples["index"]])
    pictures = {"test/samples": mosaic(samples["image"], wrong)}
    if not several:
        pictures["test/confusion"] = confusion_picture(labels, said, class_names)
    for tracker in trackers:
        tracker.scalars(step, {k: v for k, v in described["final"].items() if k.startswith("test/")})
        tracker.table(step, "final", {word: value for word, value in rows.items() if value is not None})
        for name, picture in pictures.items():
            tracker.image(step, name, picture)


def mosaic(images: np.ndarray, wrong: np.ndarray, columns: int = 8, border: int = 2) -> np.ndarray:
    """Tiles uint8 [n, h, w, c] into one picture [., ., 3]; a red frame marks what `wrong` [n] names."""
    scale = max(1, 48 // max(images.shape[1:3]))  # small images are enlarged
    images = images.repeat(scale, axis=1).repeat(scale, axis=2)
    n, h, w, _ = images.shape
    columns = min(columns, n)
    rows = -(-n // columns)
    cell_h, cell_w = h + 2 * border, w + 2 * border
    out = np.full((rows * cell_h, columns * cell_w, 3), 255, np.uint8)
    for i, image in enumerate(images):
        top, left = (i // columns) * cell_h, (i % columns) * cell_w
        if wrong[i]:
            out[top : top + cell_h, left : left + cell_w] = (213, 94, 0)  # vermilion, told apart by colour-blind eyes
        out[top + border : top + border + h, left + border : left + border + w] = image[..., :3]
    return out


def confusion_picture(labels: np.ndarray, predictions: np.ndarray, class_names: Sequence[str]) -> np.ndarray:
    """The confusion matrix with its names, shares of each true class from white to black, as uint8 [h, w, 3]."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    k = len(class_names)
    counts = np.zeros((k, k))
    np.add.at(counts, (labels, predictions), 1)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    inches = min(max(0.28 * k, 3.5), 9.0) + 1.5
    with drawing.style(**{"font.size": 8.0}):
        figure = Figure(figsize=(inches, inches), dpi=100, layout="constrained")
        canvas = FigureCanvasAgg(figure)
        axis = figure.subplots()
        axis.imshow(shares**0.5, cmap="Greys", vmin=0, vmax=1, interpolation="none")  # the root shows rare confusions
        every = -(-k // MOST_NAMES)  # of very many classes, some have their name
        names = [escape.picture(name, 20) for name in class_names[::every]]
        axis.set_xticks(range(0, k, every), names, rotation=90)
        axis.set_yticks(range(0, k, every), names)
        axis.set(xlabel="predicted", ylabel="true", title="share of each true class" + (" (%)" if k <= 20 else ""))
        for (i, j), share in np.ndenumerate(shares if k <= 20 else np.zeros((0, 0))):
            if share >= 0.005:
                axis.text(j, i, f"{100 * share:.0f}", ha="center", va="center", color="w" if share > 0.3 else "k")
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _visible(words: dict[str, Any]) -> dict[str, Any]:
    """Texts without bytes that are not UTF-8, which wandb cannot send."""
    return {word: escape.plain(value) if isinstance(value, str) else value for word, value in words.items()}


def _text(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
