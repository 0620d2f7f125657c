"""What to do with a run that has ended: where its report is, and three commands that work as they are printed."""

import shlex
from pathlib import Path
from typing import Any

from jaxvit.commands.parser import program
from jaxvit.config.default import Config
from jaxvit.errors import UserError
from jaxvit.runtime import console
from jaxvit.runtime.paths import expand
from jaxvit.workdir import run_files

FILES = ("folder", "csv")  # kinds of data whose images are files


def show(workdir: str, config: Config) -> None:
    """Prints them, after the summary of the run in `workdir` with this config."""
    path = expand(workdir)
    if config.fast_dev_run or not (path / "summary.json").exists():
        return
    page, first, *others = path / "report" / "index.html", *commands(workdir, path, config)
    state = "" if page.exists() else " (written by the first command below)"
    if page.exists() and page.stat().st_mtime < (path / "summary.json").stat().st_mtime:
        state = " (older than the run; the first command below writes it again)"
    console.err.print(f"report     {page}{state}")
    for head, words in (("next", first), *(("", words) for words in others)):  # a folded command cannot be copied
        console.err.print(f"{head:<11}{program()} {shlex.join(words)}", fold=False)


def commands(workdir: str, path: Path, config: Config) -> list[list[str]]:
    """The words of three commands about the run: its report, its model on an image, its figures in another light."""
    of = ["--workdir", workdir]
    image = test_image(path, config)
    # without files, its test images are explained
    look = ["predict", *of, image] if image else ["explain", *of, "--samples", "16"]
    summary = run_files.read_json(path / "summary.json")
    if config.augment.flip:
        again = ["eval", *of, "--tta", "flip"]
    elif (path / "calibration.json").exists():
        again = ["eval", *of, "--temperature", "run"]
    elif summary["num_val"]:
        again = ["eval", *of, "--split", "val"]
    else:
        again = ["convert", "--from", workdir, "--to", str(Path(workdir) / "timm")]
    return [["report", *of], look, again]


def test_image(path: Path, config: Config) -> str | None:
    """A test image of the run, where the data set consists of files."""
    kind, _, place = config.data.name.partition(":")
    try:
        names = run_files.read_npz(path / "samples.npz", ("name",))["name"]
        root = expand(place) if kind in FILES else None
    except UserError:
        return None
    if root is None:
        return None
    folders: list[Any] = [root, root / "test", root / "val"] if kind == "folder" else [root.parent]
    folders += [expand(config.data.dir)] if config.data.dir else []
    found = (folder / str(name) for name in names[:1] for folder in folders)
    return next((str(file) for file in found if file.is_file()), None)
