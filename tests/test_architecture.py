"""The house rules of docs/ARCHITECTURE.md, read from the sources."""

import ast
import re
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from heliograph import pipeline
from tests.waiting import DEADLINE

ROOT = Path(__file__).parent.parent
SOURCES = sorted(
    path for folder in ("model", "pipeline", "jobs") for path in (ROOT / folder).glob("**/*.py")
)

# Where each library may be imported; every other place is kept free of it.
RAY_DATA = {
    "source", "pieces", "corpus", "tokens", "batches", "pacing", "stream", "feed", "train",
    "translate_dataset",
}  # fmt: skip
RAY_TRAIN = {"worker", "feed", "reporter", "train", "whole_starts"}
MLFLOW = {
    "tracking_server", "delivery", "node_monitor", "event_log", "sync", "track",
    "versions", "contender", "ledger", "settling", "webhooks", "pyfunc", "provenance",
    "lineage", "doctor_server",
}  # fmt: skip
DATASETS = {"hub", "shards"}


def stages() -> list[str]:
    """The numbered table of contents of pipeline/__init__.py."""
    entries = re.findall(r"^ *(\d+)\. (\w+)", pipeline.__doc__ or "", flags=re.MULTILINE)
    assert [int(number) for number, _ in entries] == list(range(1, len(entries) + 1))
    return [name for _, name in entries]


@cache
def parsed(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"))


def imports(path: Path) -> Iterator[str]:
    """The dotted names that a file imports anywhere in it; `from a import b` gives a.b."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def is_inside(name: str, module: str) -> bool:
    return name == module or name.startswith(f"{module}.")


def offences(paths: Iterator[Path], *modules: str) -> list[str]:
    return [
        f"{path.relative_to(ROOT)} imports {name}"
        for path in paths
        for name in imports(path)
        if any(is_inside(name, module) for module in modules)
    ]


def test_the_model_imports_torch_and_nothing_else() -> None:
    allowed = sys.stdlib_module_names | {"torch", "model"}
    paths = (ROOT / "model").glob("**/*.py")
    found = [(path.name, name) for path in paths for name in imports(path)]
    assert found
    assert [pair for pair in found if pair[1].split(".")[0] not in allowed] == []


def test_the_pipeline_never_imports_jobs() -> None:
    assert offences((ROOT / "pipeline").glob("**/*.py"), "jobs") == []
    assert offences((ROOT / "model").glob("**/*.py"), "jobs", "pipeline") == []


def test_the_table_of_contents_is_the_folder() -> None:
    files = {path.stem for path in (ROOT / "pipeline").glob("*.py")} - {"__init__"}
    assert set(stages()) == files
    assert len(stages()) == len(files)


def test_stages_import_earlier_stages_only() -> None:
    order = {name: number for number, name in enumerate(stages())}
    wrong = []
    for path in (ROOT / "pipeline").glob("*.py"):
        for name in imports(path):
            parts = name.split(".")
            if parts[0] != "pipeline" or path.stem not in order:
                continue
            if order.get(parts[1], -1) >= order[path.stem]:
                wrong.append(f"{path.stem} imports {parts[1]}")
    assert wrong == []


@pytest.mark.parametrize(
    ("modules", "allowed"),
    [
        (("ray.data",), RAY_DATA),
        (("ray.train",), RAY_TRAIN),
        (("ray.serve",), {"serve_versions"}),
        (("mlflow",), MLFLOW),
        (("datasets",), DATASETS),
        (("sacrebleu",), {"evaluate", "significance"}),
        (("tokenizers",), {"tokenizer"}),
        (("ctranslate2",), {"conversion", "fast_engine"}),
        (("transformers",), {"marian"}),
    ],
)
def test_libraries_stay_in_their_stages(modules: tuple[str, ...], allowed: set[str]) -> None:
    others = (path for path in SOURCES if path.stem not in allowed)
    assert offences(others, *modules) == []


def test_folders_on_storage_are_listed_in_one_place() -> None:
    """pyarrow's own listing fails when a folder comes or goes while it looks (issue 14)."""
    others = (path for path in SOURCES if path.stem != "listing")
    assert [path.name for path in others if "FileSelector" in path.read_text("utf-8")] == []


def test_ray_s_modules_are_imported_by_name() -> None:
    """`import ray` and then `ray.data.…` would slip past the rule above."""
    wrong = []
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if (
                isinstance(node, ast.Attribute)
                and isinstance(node.value, ast.Name)
                and node.value.id == "ray"
            ):
                allowed = {"data": RAY_DATA, "train": RAY_TRAIN}.get(node.attr)
                if allowed is not None and path.stem not in allowed:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} uses ray.{node.attr}")
    assert wrong == []


def test_no_file_is_longer_than_a_few_screens() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in SOURCES
    }
    # The whole schema is one file, by design: it is read like a table.
    lengths["pipeline/request/recipe.py"] -= 140
    assert {name: lines for name, lines in lengths.items() if lines > 330} == {}


def test_no_function_is_longer_than_a_screen() -> None:
    long = []
    for path in SOURCES:
        for node in ast.walk(parsed(path)):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                lines = (node.end_lineno or node.lineno) - node.lineno + 1
                if lines > 66:
                    long.append(f"{path.relative_to(ROOT)}: {node.name} has {lines} lines")
    assert long == []


def test_the_model_exports_what_the_pipeline_uses() -> None:
    import heliograph.model as model

    assert {
        "TransformerConfig", "Transformer", "SmoothedLoss", "inverse_square_root",
        "greedy_search", "beam_search", "Hypothesis",
    } <= set(model.__all__)  # fmt: skip
    assert all(hasattr(model, name) for name in model.__all__)


# Run in a process of its own, in an empty folder, so that an import's traces are seen.
IMPORT_EVERYTHING = """
import importlib, logging, os, sys
def traces():
    # pyarrow, and others may set variables of their own; ours are named here.
    ours = ("RAY_", "MLFLOW_", "HF_", "TOKENIZERS_", "OMP_")
    variables = {key: os.environ[key] for key in os.environ if key.startswith(ours)}
    return variables, list(logging.root.handlers), logging.root.level
import ray.train.torch, torch, typer  # what libraries do at import is theirs
before = traces()
import heliograph.pipeline.training.loop
print("mlflow" in sys.modules)
print(before == traces())
import mlflow
before = traces()
for name in sys.argv[1:]:
    importlib.import_module(name)
print(before == traces())
print(sorted(os.listdir(".")))
"""


def test_nothing_happens_at_import(tmp_path: Path) -> None:
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES]
    modules = [name.removesuffix(".__init__") for name in modules]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_EVERYTHING, *modules],
        cwd=tmp_path,
        env={
            "PATH": "",
            "HOME": str(tmp_path),
            "PYTHONPATH": str(ROOT),
            "MPLCONFIGDIR": "/dev/null",
            "MLFLOW_DISABLE_TELEMETRY": "true",  # which makes a folder at home
        },
        capture_output=True,
        text=True,
        timeout=DEADLINE,
        check=True,
    )
    for_workers, *untouched, left_behind = done.stdout.splitlines()
    assert for_workers == "False"  # each start of a job would wait for MLflow on every rank
    assert (untouched, left_behind) == (["True", "True"], "[]")


def test_a_recipe_needs_nothing_heavy() -> None:
    """A mistake in a recipe is answered before torch, Ray or MLflow are loaded."""
    script = (
        "import heliograph.jobs.cli, heliograph.pipeline.request.recipe, sys; "
        "print([name for name in ('torch', 'ray', 'mlflow', 'datasets', 'numpy', 'pyarrow')"
        " if name in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert done.stdout.strip() == "[]"
