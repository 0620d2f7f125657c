"""The order of the folders: imports run one way, downward; importing the package is cheap."""

import ast
import fnmatch
import subprocess
import sys
from pathlib import Path

PACKAGE = Path(__file__).resolve().parent.parent / "jaxvit"
ORDER = (
    "errors", "patterns", "tree", "precision", "runtime", "plugins", "config", "ops", "models", "optim", "data",
    "pretrained", "explain", "step", "workdir", "build", "inference", "export", "confidence", "train", "plan", "bench",
    "reports", "combine", "studies", "sweep", "commands", "cli",
)  # fmt: skip
HEAVY = ("torch", "tensorflow", "tensorflow_datasets", "grain", "tensorboardX", "sklearn", "huggingface_hub", "jax")


def modules():
    return sorted(PACKAGE.rglob("*.py"))


def top(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imported(path: Path):
    """Yields the jaxvit modules named in import statements, at any depth of the file."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names if alias.name.startswith("jaxvit"))
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("jaxvit"):
            assert node.level == 0
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def test_imports_run_one_way():
    """A module imports from its own folder and from those before it in ORDER."""
    wrong = []
    for path in modules():
        own = top(path)
        if own == "__init__":
            continue
        if own not in ORDER:
            wrong.append(f"{own} has no place in ORDER")
            continue
        for name in imported(path):
            other = name.split(".")[1] if "." in name else ""
            if other == "configs" or other in ORDER and ORDER.index(other) > ORDER.index(own):
                wrong.append(f"{path.relative_to(PACKAGE)} imports {name}")
    assert not wrong, "\n".join(wrong)


def test_no_module_is_longer_than_400_lines():
    lines = {str(path.relative_to(PACKAGE)): len(path.read_text(encoding="utf-8").splitlines()) for path in modules()}
    assert not {name: count for name, count in lines.items() if count > 400}


def test_import_and_help_load_nothing_heavy():
    code = (
        "import sys, jaxvit, jaxvit.cli\n"
        "try: jaxvit.cli.main(['--help'])\n"
        "except SystemExit as stop: assert stop.code == 0\n"
        f"print([m for m in {HEAVY!r} if m in sys.modules], file=sys.stderr)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr.strip() == "[]"


def test_training_never_imports_torch_or_tensorflow():
    code = "import sys, jaxvit.train, jaxvit.inference\nprint([m for m in ('torch', 'tensorflow') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_every_folder_of_tests_is_collected(request):
    left_out = request.config.getini("norecursedirs")  # pytest's own list has "build" and "dist"
    folders = {path.name for path in Path(__file__).parent.rglob("*") if path.is_dir() and path.name != "__pycache__"}
    assert not {name for name in folders for pattern in left_out if fnmatch.fnmatch(name, pattern)}


def test_what_tests_share_lies_in_helpers():
    wrong = []
    for path in sorted(Path(__file__).parent.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else []
            wrong += [f"{path.name}: {name}" for name in names if name.split(".")[0] == "tests" and "_test" in name]
    assert not wrong, "\n".join(wrong)


# What has no test of its own name -> where it is tested.
TESTED_BY = {
    "bench/ceiling": "bench/report_test.py",
    "bench/loop": "commands/bench_test.py",
    "bench/timm_loader_side": "bench/loader_test.py",
    "bench/programs": "tools/gpu_compile_test.py",
    "build/binary": "train/several_test.py",
    "build/facts": "build/blueprint_test.py",
    "build/parts": "build/blueprint_test.py",
    "build/resolve": "build/blueprint_test.py",
    "combine/batch_norm": "combine/average_test.py",
    "combine/passes": "combine/ensemble_test.py",
    "commands/average": "combine/average_test.py",
    "commands/classifier": "commands/predict_test.py",
    "commands/figures": "commands/explain_test.py",
    "commands/leaks": "train/leaks_test.py",
    "commands/maps": "commands/explain_test.py",
    "commands/source": "commands/convert_test.py",
    "commands/study": "studies/conduct_test.py",
    "commands/together": "combine/ensemble_test.py",
    "confidence/unknown_images": "commands/trust_test.py",
    "data/by_size": "build/sizes_test.py",
    "data/files": "data/formats_test.py",
    "data/index_file": "data/listing_test.py",
    "data/rows": "data/pipeline_test.py",
    "data/streamed": "data/pipeline_test.py",
    "data/worker": "data/workers_test.py",
    "models/conv_checks": "models/resnet_test.py",
    "models/eva_blocks": "models/eva_test.py",
    "models/eva_layouts": "pretrained/eva_files_test.py",
    "models/eva_family": "models/registry_test.py",
    "models/eva_variants": "models/registry_test.py",
    "models/hf_model": "pretrained/hf_architecture_test.py",
    "models/convnext_variants": "models/registry_test.py",
    "models/resnet_variants": "models/registry_test.py",
    "models/swin_v2_variants": "models/registry_test.py",
    "models/swin_variants": "models/registry_test.py",
    "models/vit_family": "optim/masks_test.py",
    "models/vit_layouts": "pretrained/foreign_test.py",
    "ops/attention": "ops/cudnn_attention_test.py",
    "ops/macs": "models/macs_test.py",
    "reports/blocks": "reports/page_test.py",
    "reports/card": "commands/push_test.py",
    "reports/confidence": "commands/trust_test.py",
    "reports/neighbours": "reports/deep_test.py",
    "reports/several": "train/several_test.py",
    "reports/tables": "reports/report_test.py",
    "runtime/allocator": "runtime/platform_test.py",
    "studies/report": "studies/conduct_test.py",
    "train/epochs": "train/loop_test.py",
    "train/run": "train/loop_test.py",
    "workdir/orbax_quirks": "workdir/checkpoint_test.py",
}


def test_the_test_of_a_module_is_found_by_its_name():
    here = Path(__file__).parent
    tests = {str(path.relative_to(here).with_suffix("")).removesuffix("_test") for path in here.rglob("*_test.py")}
    names = {str(path.relative_to(PACKAGE).with_suffix("")) for path in modules() if not path.name.startswith("__")}
    without = names - tests - TESTED_BY.keys()
    assert not without, "\n".join(f"tests/{name}_test.py is missing" for name in sorted(without))
    assert TESTED_BY.keys() <= names - tests, "the table has modules that are gone or have a test of their own"
    assert all((here / test).is_file() for test in TESTED_BY.values())
