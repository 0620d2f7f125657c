"""What messages, docstrings and documents name is there: paths, modules, commands, options, config options."""

import ast
import contextlib
import functools
import importlib
import io
import re
from pathlib import Path

import jax
import pytest
from ml_collections import ConfigDict

from jaxvit import cli, config, models
from jaxvit.config import words as words_lib

ROOT = Path(__file__).resolve().parent.parent
DOCUMENTS = [
    "README.md",
    "CONTRIBUTING.md",
    "SECURITY.md",
    *sorted(str(p.relative_to(ROOT)) for folder in ("docs", "results", "tools") for p in (ROOT / folder).rglob("*.md")),
]
CODE = ["main.py", "jaxvit", "configs", "tools"]
FOLDERS = "jaxvit|configs|docs|tests|tools|results|notebooks"
HOLDERS = re.compile(r"[A-Z]{2,}|[<>{}*\[\]$]|\.\.\.|MINE|mine")  # NAME, {file}, *, ...
MADE = ("results/gpu", "docs/_build", "my_depth.py", "serve.py", "report.md")  # by the work that a text describes
OPEN = words_lib.OPEN[1:]  # what stands below them differs from optimiser to optimiser, and from loss to loss
EXAMPLES = ("word", "option", "a.b", "eval_every")  # no options: stand-ins, and the beginning of several


def strings(file: Path):
    """Yields (line, text) of the strings of a Python file; what an f-string puts in is "{}"."""
    tree = ast.parse(file.read_text(encoding="utf-8"))
    within = {id(part) for node in ast.walk(tree) if isinstance(node, ast.JoinedStr) for part in node.values}
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in within:
            yield node.lineno, node.value
        elif isinstance(node, ast.JoinedStr):
            yield node.lineno, "".join(p.value if isinstance(p, ast.Constant) else "{}" for p in node.values)


@functools.cache
def texts():
    """All texts as (where, text)."""
    found = []
    for name in CODE:
        for file in sorted((ROOT / name).rglob("*.py")) if (ROOT / name).is_dir() else [ROOT / name]:
            found += [(f"{file.relative_to(ROOT)}:{line}", text) for line, text in strings(file)]
    for name in DOCUMENTS:
        lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
        found += [(f"{name}:{i}", line) for i, line in enumerate(lines, 1)]
    return found


def flat(values: ConfigDict, prefix=""):
    for name in values:
        yield prefix + name
        if isinstance(values[name], ConfigDict):
            yield from flat(values[name], f"{prefix}{name}.")


@functools.cache
def words():
    """The config options there are, of all models."""
    found = set(flat(config.default()))
    for name in models.list_models():
        found |= {f"model.{field}" for field in models.model_fields(name)}
    return found


@functools.cache
def options(command: str):
    """The options of a command ("" is training), from its help."""
    out = io.StringIO()
    with contextlib.redirect_stdout(out), pytest.raises(SystemExit):
        cli.main([*([command] if command else []), "--help"])
    return set(re.findall(r"--[a-z][\w-]*", out.getvalue()))


def test_paths_are_there():
    missing = []
    for where, text in texts():
        for path in re.findall(rf"(?<![\w/.-])((?:{FOLDERS})/[\w./*<>{{}}\[\]-]+)", text):
            path = path.rstrip(".,:;-")
            if not HOLDERS.search(path) and not (ROOT / path).exists() and not path.startswith(MADE):
                missing.append(f"{where}: {path}")
    assert not missing, "\n".join(missing)


def test_files_named_alone_are_there():
    names = {p.name for p in ROOT.rglob("*") if ".git" not in p.parts}
    missing = []
    for where, text in texts():
        for name in re.findall(r"`([\w-]+\.(?:py|md|j2|toml))`", text):
            if name not in names and name not in MADE:
                missing.append(f"{where}: {name}")
    assert not missing, "\n".join(missing)


def test_names_in_documents_are_in_the_code():
    """Functions, classes and files as `names_with_underscores`, `CONSTANTS` and `calls()`."""
    code = [p for folder in ("jaxvit", "configs", "tools", "tests", ".ci") for p in (ROOT / folder).rglob("*")]
    files = [p for p in [*code, *ROOT.glob("*.*")] if p.suffix in (".py", ".toml", ".json", ".j2") or p.name == "run"]
    there = set(re.findall(r"\w+", " ".join(p.read_text(encoding="utf-8") for p in files if p.is_file())))
    there |= {part for p in code for part in re.findall(r"\w+", p.name)}
    missing = []
    for where, text in texts():
        if where.split(":")[0].endswith(".md"):
            for name in re.findall(r"`([A-Za-z]\w*_\w+|[A-Z][A-Z]+|[a-z]\w+\(\))`", text):
                if name.rstrip("()") not in there and not name.startswith("xla_") and not hasattr(jax.lax, name):
                    missing.append(f"{where}: {name}")
    assert not missing, "\n".join(missing)


def test_the_table_of_levels_names_modules():
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| ((?:`[\w./]+` ?)+)\|", text.partition("| folder | job |")[2], re.MULTILINE)
    named = [name.rstrip("/").removesuffix(".py") for row in rows for name in re.findall(r"`([^`]*)`", row)]
    assert len(named) > 15 and [n for n in named if not _resolves(f"jaxvit.{n}")] == []


def test_links_lead_somewhere():
    missing = []
    for name in DOCUMENTS:
        text = (ROOT / name).read_text(encoding="utf-8")
        for target in re.findall(r"\]\(([^)#\s]+)[^)]*\)", text):
            elsewhere = ("http:", "https:", "mailto:", "generated/")  # the site's build checks what it generates
            if not target.startswith(elsewhere) and not ((ROOT / name).parent / target).exists():
                missing.append(f"{name}: {target}")
    assert not missing, "\n".join(missing)


def test_modules_are_there():
    missing = []
    for where, text in texts():
        for name in re.findall(r"(?<![\w./-])jaxvit(?:\.[A-Za-z_]\w*)+(?!\w*\[)", text):
            if not _resolves(name):
                missing.append(f"{where}: {name}")
    assert not missing, "\n".join(missing)


@functools.cache
def _resolves(name: str) -> bool:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:end]))
        except ImportError:
            continue
        for part in parts[end:]:
            if not hasattr(found, part):
                return False
            found = getattr(found, part)
        return True
    return False


def commands():
    """Yields (where, words) of the command lines that are named."""
    for where, text in texts():
        for line in text.replace("\\\n", " ").splitlines():
            for match in re.finditer(r"(?:python main\.py|%\(prog\)s|\bjaxvit)(?= +(?:--|[a-z]+\b))( +[^`\n]*)", line):
                rest = match[1]
                known = re.match(rf" +(?:--config|{'|'.join(cli.COMMANDS)})\b", rest)
                if match[0].startswith("jaxvit") and not known:
                    continue  # prose: "jaxvit trains ..."
                rest = re.split(r"\s#|  [a-z(]|[;)]|, |\. ", rest)[0]
                yield where, rest.split()


def test_commands_and_their_options_are_there():
    wrong = []
    for where, line in commands():
        command = line[0] if line and re.fullmatch(r"[a-z]+", line[0]) else ""
        own = re.match(r"jaxvit/commands/(\w+)\.py", where)
        if command and command not in cli.COMMANDS:
            if own is None:  # of a command's own help: %(prog)s has it
                wrong.append(f"{where}: no command {command!r}")
            continue
        command = command or (own[1] if own and own[1] in cli.COMMANDS else "")
        for word in line:
            name = re.match(r"\[?(--[a-z][\w-]*)", word)
            if name and not word.lstrip("[").startswith("--config.") and name[1] not in options(command) | {"--help"}:
                wrong.append(f"{where}: {command or 'training'} has no option {name[1]}")
    assert not wrong, "\n".join(wrong)


def test_configs_named_are_there():
    missing = []
    for where, text in texts():
        for name in re.findall(r"--config[ =]([\w./{}-]+)", text):
            if not HOLDERS.search(name) and name.startswith("configs/") and not (ROOT / name).exists():
                missing.append(f"{where}: {name}")
    assert not missing, "\n".join(missing)


def test_config_options_are_there():
    missing = []
    sections = {word.partition(".")[0] for word in words() if "." in word}
    for where, text in texts():
        named = re.findall(r"--config\.([a-z_][\w.]*\w)", text)
        if where.split(":")[0].endswith(".md"):
            named += re.findall(rf"`((?:{'|'.join(sections)})\.[a-z_][\w.]*)(?:=[^`]*)?`", text)
        named = [
            name
            for name in named
            if not HOLDERS.search(name) and not re.search(r"\.(png|safetensors|onnx|\w+hlo)$", name)
        ]
        named = [n for n in named if n not in words() and not n.startswith(OPEN)]
        missing += [f"{where}: {name}" for name in named if name not in EXAMPLES]
    assert not missing, "\n".join(missing)
