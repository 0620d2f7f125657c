"""A bar in a notebook."""

import sys
import types

import pytest

from jaxvit.runtime import console, notebook, screen


class Handle:
    def __init__(self, outputs, text):
        self.outputs, self.place = outputs, len(outputs)
        outputs.append(text)

    def update(self, data, raw):
        assert raw
        self.outputs[self.place] = data["text/plain"]


@pytest.fixture
def cells(monkeypatch):
    """A kernel: its outputs, and its count of cells."""
    outputs = []
    shell = type("ZMQInteractiveShell", (), {"execution_count": 1})()
    display = types.ModuleType("IPython.display")
    display.display = lambda data, raw, display_id: Handle(outputs, data["text/plain"])
    ipython = types.ModuleType("IPython")
    ipython.get_ipython = lambda: shell
    monkeypatch.setitem(sys.modules, "IPython", ipython)
    monkeypatch.setitem(sys.modules, "IPython.display", display)
    monkeypatch.setattr(screen._Cell, "output", notebook.InPlace())
    return outputs, shell


def test_one_output_for_each_cell_and_lines_on_standard_output(cells, capsys, monkeypatch):
    outputs, shell = cells
    monkeypatch.setattr(screen, "CELL_SECS", 0.001)
    for epoch in (1, 2):
        with console.bar(f"epoch {epoch}/2", 10) as meter:
            meter.advance(10)
        console.err.print(f"epoch {epoch}/2  loss 1.0")
    assert len(outputs) == 1 and "epoch 2/2" in outputs[0] and "10/10" in outputs[0]
    shell.execution_count += 1
    with console.working("compiling"):
        pass
    assert len(outputs) == 2 and outputs[1] == "compiling: 0.0 s"
    said = capsys.readouterr()
    assert said.out.splitlines() == ["epoch 1/2  loss 1.0", "epoch 2/2  loss 1.0"] and said.err == ""


def test_this_is_no_notebook():
    assert not notebook.is_inside()


@pytest.mark.slow
def test_a_kernel_shows_one_output():
    nbclient, nbformat = pytest.importorskip("nbclient"), pytest.importorskip("nbformat")
    pytest.importorskip("ipykernel")
    code = (
        "import time\nfrom jaxvit.runtime import console\n"
        "for epoch in (1, 2, 3):\n"
        "    with console.bar(f'epoch {epoch}/3', 10) as meter:\n"
        "        for _ in range(10):\n            time.sleep(0.1)\n            meter.advance(1)\n"
        "    console.err.print(f'epoch {epoch}/3  loss 1.0')\n"
    )
    book = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(code)])
    nbclient.NotebookClient(book, timeout=120, kernel_name="python3").execute()
    outputs = book.cells[0].outputs
    shown = [output for output in outputs if output.output_type == "display_data"]
    lines = "".join(output.text for output in outputs if output.output_type == "stream" and output.name == "stdout")
    assert len(shown) == 1 and "10/10" in shown[0].data["text/plain"] and "epoch 3/3" in shown[0].data["text/plain"]
    assert lines.splitlines() == [f"epoch {epoch}/3  loss 1.0" for epoch in (1, 2, 3)]
