"""A study: rows of (label, config, options, published figures), read from a file and checked before anything runs.

A study's file is Python that sets `STUDY = Study(...)`; docs/STUDIES.md shows how to write one.
"""

import dataclasses
import importlib.util
import re
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxvit import config as config_lib
from jaxvit import models, tree
from jaxvit.build import checks
from jaxvit.config import recipes
from jaxvit.config.default import Config
from jaxvit.errors import UserError, suggest
from jaxvit.runtime import escape
from jaxvit.runtime.paths import expand

# A figure that a report may publish: its key -> the head of its column. What ours is, `studies.tables.OURS` says.
METRICS = {
    "accuracy": "top-1 (%)",
    "balanced_accuracy": "balanced accuracy (%)",
    "macro_f1": "macro F1 (%)",
    "mAP": "mAP (%)",
    "micro_f1": "micro F1 (%)",
    "exact_match": "exact match (%)",
    "knn": "kNN top-1 (%)",
    "parameters": "parameters (M)",
    "macs": "MACs (M)",
    "seconds_per_epoch": "s/epoch",
    "seconds": "training (s)",
    "best_epoch": "best epoch",
    "epochs": "epochs",
    "images_per_second": "test images/s",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """One experiment of a study; every seed of it is a run in `DIR/name/seedN`, and every fold in `seedN-foldI`."""

    name: str  # of its directory: letters, digits, "_" and "-"
    label: str  # what the tables call it
    config: str | None = None  # a file in configs/, without suffix; None: the study's
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # "optim.learning_rate": 1e-3, over the study's
    teacher: str | None = None  # the row whose run, of the same seed, is the teacher
    published: Mapping[str, float] = dataclasses.field(default_factory=dict)  # by the keys of METRICS
    remark: str = ""  # what a reader must know to compare: source, difference of protocol
    extra: bool = False  # not a row of the published report; shown in a separate table
    part: str = ""  # rows of one part are drawn and compared with each other; none: published ones, extra ones
    subject: str = ""  # rows of one subject in several parts stand in one line of a table, a column for each part
    neighbours: int | None = None  # measure the column knn: this many nearest training images, in the row's features


@dataclasses.dataclass(frozen=True, kw_only=True)
class Study:
    """A comparison: what its report published, how ours is run, how the two are to be read."""

    title: str
    rows: Sequence[Row]
    source: str  # of the published figures
    config: str | None = None  # a file in configs/, without suffix; None: the defaults
    words: Mapping[str, Any] = dataclasses.field(default_factory=dict)  # of all rows
    columns: Sequence[str] = ("accuracy",)  # keys of METRICS, in the order of the published table
    reading: Sequence[str] = ()  # paragraphs: where the protocols differ, what the figures can say
    seeds: Sequence[int] = (0,)
    pictures: Sequence[str] = ()  # rows whose overlays and heat maps stand side by side; none: the first ones
    throughput: bool = False  # measure test images per second of every row
    by_epoch: bool = False  # a table of all figures at each epoch

    def row(self, name: str) -> Row:
        """The row of that name; raises UserError."""
        for row in self.rows:
            if row.name == name:
                return row
        names = [row.name for row in self.rows]
        raise UserError(f"no row {name!r} in this study; expected {', '.join(names)}.{suggest(name, names)}")


@dataclasses.dataclass(frozen=True)
class Options:
    """What a study is run with; all but `checkpoints` are the same whenever the study resumes in a directory."""

    smoke: bool = False
    epochs: int | None = None
    data: str | None = None
    overrides: tuple[str, ...] = ()  # --config.option=value, of all rows
    checkpoints: str | None = None
    folds: int | None = None  # every run once for each of this many folds


def directories() -> list[Path]:
    """Where studies are looked for by name: configs/studies of the working directory, and those of jaxvit."""
    homes = [Path.cwd() / "configs", recipes.directory()]
    found = [home / "studies" for home in homes if home is not None]
    return [path for path in dict.fromkeys(path.resolve() for path in found) if path.is_dir()]


def names() -> dict[str, Path]:
    """The studies there are by name, and their files."""
    files = [file for directory in reversed(directories()) for file in sorted(directory.glob("*.py"))]
    return {file.stem: file for file in files if not file.stem.startswith("_")}


def load(name: str) -> tuple[Study, Path]:
    """Returns (study, its file) by name or by path. Raises UserError if there is none or it makes no sense."""
    known = names()
    path = expand(name) if name.endswith(".py") else known.get(name)
    if path is None:
        where = "" if known else " This copy of jaxvit has no studies: give the path of a file."
        raise UserError(f"no study {name!r}.{suggest(name, known)}{where}" + (_list(known) if known else ""))
    if not path.is_file():
        raise UserError(f"no study file {name!r}")
    found = _run(path)
    if not isinstance(found, Study):
        raise UserError(f"{str(path)!r} has no STUDY = Study(...); docs/STUDIES.md shows how to write a study")
    _check(found, path)
    return found, path.resolve()


def _list(known: Mapping[str, Path]) -> str:
    return f"\nexpected one of {', '.join(sorted(known))}, or the path of a file"


def _run(path: Path) -> Any:
    spec = importlib.util.spec_from_file_location(f"jaxvit_study_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except (Exception, SystemExit) as error:  # whatever the code of the file raises is its own mistake
        said = escape.message(error)
        raise UserError(f"study {str(path)!r} failed: {type(error).__name__}: {said}") from error
    finally:
        sys.modules.pop(spec.name, None)
    return getattr(module, "STUDY", None)


def _check(study: Study, path: Path) -> None:
    """Raises UserError for names, figures and references that make no sense; configs are checked by `row_config`."""
    where, seen = f"study {path.stem}", set()
    if not study.rows:
        raise UserError(f"{where} has no rows")
    for row in study.rows:
        if not re.fullmatch(r"[A-Za-z0-9][\w-]*", row.name) or row.name in RESERVED:
            raise UserError(f"{where}: {row.name!r} is not a name for a row; expected letters, digits, '_' and '-'")
        if row.name in seen:
            raise UserError(f"{where} has two rows {row.name!r}")
        if row.teacher is not None and row.teacher not in seen:
            raise UserError(f"{where}: row {row.name!r} has the teacher {row.teacher!r}, which is not a row before it")
        seen.add(row.name)
        if row.neighbours is not None and row.neighbours < 1:
            raise UserError(f"{where}: row {row.name!r} has neighbours={row.neighbours}; expected 1 or more, or None")
        if row.subject and not row.part:
            raise UserError(f"{where}: row {row.name!r} has a subject; expected a part too, which is its column")
        for key, value in row.published.items():
            if key not in METRICS or isinstance(value, bool) or not isinstance(value, int | float):
                raise UserError(
                    f"{where}: row {row.name!r} publishes {key}={value!r}; expected a number of "
                    f"{', '.join(METRICS)}.{suggest(key, METRICS)}"
                )
            if key not in study.columns:
                raise UserError(f"{where}: row {row.name!r} publishes {key!r}, which is not one of its columns")
    for key in study.columns:
        if key not in METRICS:
            raise UserError(f"{where}: no column {key!r}; expected {', '.join(METRICS)}.{suggest(key, METRICS)}")
    for name in study.pictures:
        study.row(name)


RESERVED = ("report", "smoke_data", "weights")


def row_config(study: Study, file: Path, row: Row, seed: int, options: Options) -> Config:
    """The config of one run before its teacher and its weights are looked up. Raises UserError that names the row."""
    try:
        config = _config_file(file, row.config or study.config)
        try:
            with config.unlocked():
                config_lib.update(config, nested({**study.words, **row.words}))
        except UserError:
            raise
        except (TypeError, ValueError) as error:
            raise UserError(str(error).splitlines()[0]) from None
        config.seed = seed
        if options.data is not None:
            config.data.name = options.data
        if options.epochs is not None:
            config.num_epochs = options.epochs
        config = config_lib.override(config, options.overrides, models.model_fields)
        if options.folds is not None and config.data.fold is not None:
            raise UserError(f"data.fold is {config.data.fold!r}; --folds {options.folds} sets the fold of every run")
        checks.check(config)
        models.create_model(config.model.name, **{k: v for k, v in config.model.items() if k != "name"})
    except UserError as error:
        raise UserError(f"row {row.name!r}: {error}") from None
    return config


def _config_file(file: Path, name: str | None) -> Config:
    if name is None:
        return config_lib.default()
    for directory in (file.parent, file.parent.parent, *(path.parent for path in directories())):
        if (path := directory / f"{name}.py").is_file():
            return config_lib.load(str(path))
    near = [path.stem for path in file.parent.parent.glob("*.py")]
    raise UserError(f"no config {name!r} in configs/.{suggest(name, near)}")


def nested(words: Mapping[str, Any]) -> dict[str, Any]:
    """{"a.b": 1} -> {"a": {"b": 1}}."""
    return tree.unflatten({word.replace(".", "/"): value for word, value in words.items()})


def chosen(study: Study, wanted: Sequence[str]) -> list[Row]:
    """The rows asked for, all where none is, with the teachers that they need; in the study's order."""
    picked = {study.row(name).name for name in wanted} or {row.name for row in study.rows}
    for row in reversed(study.rows):
        if row.name in picked and row.teacher is not None:
            picked.add(row.teacher)
    return [row for row in study.rows if row.name in picked]
