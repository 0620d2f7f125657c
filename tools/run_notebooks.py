"""Runs notebooks from beginning to end, and keeps their outputs small.

    python tools/run_notebooks.py notebooks/*.ipynb                                       # as a reader would
    python tools/run_notebooks.py notebooks/own_loop.ipynb --set epochs=2 --check         # short, and nothing is kept

`--set NAME=VALUE` takes the place of a value in the cell with the tag "parameters"; that cell stays as it is. Each
notebook runs in an empty directory. `tests/notebooks_test.py` runs them all with tiny models and few images.
"""

import argparse
import ast
import base64
import io
import json
import re
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat

LIMIT = 100_000  # characters of an output


def run(path: Path, directory: Path, parameters: Mapping[str, Any] | None = None, timeout: int = 1200) -> Any:
    """Returns the notebook after its cells have run in `directory`, with its own cells and new outputs.

    Raises:
      nbclient.exceptions.CellExecutionError: a cell failed.
      KeyError: a parameter that the notebook does not have.
    """
    from nbclient import NotebookClient

    notebook = nbformat.read(path, as_version=4)
    place = next(i for i, cell in enumerate(notebook.cells) if "parameters" in cell.metadata.get("tags", ()))
    for name in parameters or {}:
        if not re.search(rf"^{name} = ", notebook.cells[place].source, re.MULTILINE):
            raise KeyError(f"{path.name} has no parameter {name}")
    given = nbformat.v4.new_code_cell("\n".join(f"{name} = {value!r}" for name, value in (parameters or {}).items()))
    notebook.cells.insert(place + 1, given)
    client = NotebookClient(
        notebook, timeout=timeout, kernel_name="python3", resources={"metadata": {"path": str(directory)}}
    )
    client.execute()
    notebook.cells.remove(given)
    for number, cell in enumerate((cell for cell in notebook.cells if cell.cell_type == "code"), 1):
        cell.execution_count = number
        cell.outputs = [tidied(output, number) for output in joined(cell.outputs)]
        cell.metadata.pop("execution", None)
    notebook.metadata["language_info"] = {"name": "python"}
    return notebook


def joined(outputs: list[Any]) -> list[Any]:
    """The outputs with what was printed to one stream in a row as one text."""
    made: list[Any] = []
    for output in outputs:
        if made and output.output_type == "stream" and made[-1].get("name") == output.name:
            made[-1]["text"] += output.text
        else:
            made.append(output)
    return made


def tidied(output: Any, number: int) -> Any:
    """The output as it looked at the end: a bar's last state, small pictures."""
    if "execution_count" in output:
        output["execution_count"] = number
    if "text" in output:
        output["text"] = "\n".join(re.split(r"\r(?!$)", line.rstrip("\r"))[-1] for line in output["text"].split("\n"))
    if "image/png" in output.get("data", {}):
        output["data"].update(reduced(output["data"].pop("image/png")))
    return output


def reduced(png: str) -> dict[str, str]:
    """A PNG image as base64 text -> {type: text} of the smaller of a PNG with a palette and a JPEG."""
    from PIL import Image

    image, palette, jpeg = Image.open(io.BytesIO(base64.b64decode(png))).convert("RGB"), io.BytesIO(), io.BytesIO()
    image.quantize(128).save(palette, "PNG", optimize=True)
    image.save(jpeg, "JPEG", quality=60, optimize=True)
    made = {"image/png": palette.getvalue(), "image/jpeg": jpeg.getvalue()}
    smaller = min(made, key=lambda kind: len(made[kind]))
    return {smaller: base64.b64encode(made[smaller]).decode() + "\n"}


def too_large(notebook: Any) -> list[int]:
    """The cells, by number, with an output above LIMIT."""
    return [
        i
        for i, cell in enumerate(notebook.cells)
        if any(len(str(output)) > LIMIT for output in cell.get("outputs", ()))
    ]


def main() -> int:
    """Runs the notebooks that are named; returns the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("notebooks", nargs="+", type=Path, metavar="NOTEBOOK")
    parser.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a parameter")
    parser.add_argument("--check", action="store_true", help="only run; the file stays as it is")
    args = parser.parse_args()
    parameters = {}
    for pair in args.set:
        name, _, value = pair.partition("=")
        try:
            parameters[name] = ast.literal_eval(value)
        except (SyntaxError, ValueError):  # a word
            parameters[name] = value
    for path in args.notebooks:
        with tempfile.TemporaryDirectory() as directory:
            notebook = run(path, Path(directory), parameters)
        large = too_large(notebook)
        if large:
            print(f"{path}: the outputs of the cells {large} are above {LIMIT:,} characters", file=sys.stderr)
            return 1
        if not args.check:
            plain = json.loads(nbformat.writes(notebook))  # which indents: 10 kB of blanks
            Path(path).write_text(json.dumps(plain, ensure_ascii=False, indent=0) + "\n", encoding="utf-8")
        print(f"{path}: done")
    return 0


if __name__ == "__main__":
    import quiet

    quiet.run(main)
