"""The house rules of docs/ARCHITECTURE.md, read from the sources."""

import ast
import importlib
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.waiting import DEADLINE

ROOT = Path(__file__).parent.parent
WINGS = ROOT / "pipeline"
SOURCES = sorted(
    path for folder in ("model", "pipeline", "jobs") for path in (ROOT / folder).glob("**/*.py")
)

# Where each library may be imported; every other place is kept free of it.
RAY_DATA = {
    "sources.source", "corpus.pieces", "corpus.corpus", "steps.tokens", "steps.batches",
    "steps.pacing", "steps.stream", "workers.feed", "workers.trainer", "bulk.dataset",
}  # fmt: skip
RAY_TRAIN = {
    "training.worker", "workers.feed", "workers.reporter", "workers.train", "workers.trainer",
    "workers.whole_starts",
}  # fmt: skip
MLFLOW = {
    "tracking.server", "tracking.delivery", "tracking.node_monitor", "tracking.event_log",
    "tracking.sync", "runs.track", "registry.versions", "registry.downloads", "registry.pyfunc",
    "registry.provenance", "promotion.ledger", "promotion.settling", "promotion.webhooks",
    "registry.contender", "models.lineage", "doctor.server",
}  # fmt: skip
DATASETS = {"sources.hub", "sources.shards"}


def listed(package: str) -> list[str]:
    """What a package's face says that is in it, in order."""
    said = importlib.import_module(package).__doc__ or ""
    return re.findall(r"^    (\w+)  +\w", said, flags=re.MULTILINE)


def wings() -> list[str]:
    return listed("heliograph.pipeline")


def place(path: Path) -> str:
    """wing.module."""
    return ".".join(path.relative_to(WINGS).with_suffix("").parts) if WINGS in path.parents else ""


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
    paths = (ROOT / "model").glob("**/*.py")
    found = [(path.name, name) for path in paths for name in imports(path)]
    assert found
    for path, name in found:
        library = name.split(".")[0]
        assert (
            library in sys.stdlib_module_names
            or library == "torch"
            or is_inside(name, "heliograph.model")
        ), path


def test_the_pipeline_s_face_lists_its_wings_in_the_order_of_imports() -> None:
    """That imports go to earlier wings only is import-linter's to say, in `make lint`."""
    folders = {path.name for path in WINGS.iterdir() if (path / "__init__.py").exists()}
    assert len(wings()) == len(folders)
    assert set(wings()) == folders
    assert {path.name for path in WINGS.glob("*.py")} == {"__init__.py"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
    commands, layers = project["tool"]["importlinter"]["contracts"]
    assert wings() == layers["layers"][::-1]
    assert commands["layers"] == ["heliograph.jobs", "heliograph.pipeline", "heliograph.model"]


@pytest.mark.parametrize("wing", wings())
def test_a_wing_s_face_lists_its_files_which_import_earlier_ones(wing: str) -> None:
    package = f"heliograph.pipeline.{wing}"
    order = {name: number for number, name in enumerate(listed(package))}
    files = [path for path in (WINGS / wing).glob("*.py") if path.stem != "__init__"]
    folders = [path for path in (WINGS / wing).iterdir() if (path / "__init__.py").exists()]
    assert {path.stem for path in [*files, *folders]} == set(order)
    assert 3 <= len(order) <= 12, "neither two files nor twenty"
    for path in files:
        for name in imports(path):
            if is_inside(name, package):
                within = name.removeprefix(f"{package}.").split(".")[0]
                assert order[within] < order[path.stem], f"{path.stem} imports {within}"


def test_a_wing_s_face_says_what_comes_in_and_goes_out_and_loads_nothing() -> None:
    for wing in wings():
        face = WINGS / wing / "__init__.py"
        said = ast.get_docstring(parsed(face)) or ""
        assert "\nIn: " in said, wing
        assert "\nOut: " in said, wing
        assert len(parsed(face).body) == 1, f"{wing}: a face is its words alone"


def test_tests_mirror_the_wings() -> None:
    """But for what shows several files at work together."""
    for path in (ROOT / "tests/pipeline").glob("*/**/test_*.py"):
        folder = path.parent.relative_to(ROOT / "tests/pipeline")
        assert (WINGS / folder).is_dir(), path


@pytest.mark.parametrize(
    ("modules", "allowed"),
    [
        (("ray.data",), RAY_DATA),
        (("ray.train",), RAY_TRAIN),
        (("ray.serve",), {"serving.versions"}),
        (("mlflow",), MLFLOW),
        (("datasets",), DATASETS),
        (("sacrebleu",), {"scoring.evaluate", "scoring.significance"}),
        (("tokenizers",), {"steps.tokenizer"}),
        (("ctranslate2",), {"translation.conversion", "translation.fast_engine"}),
        (("transformers",), {"translation.marian"}),
    ],
)
def test_libraries_stay_in_their_files(modules: tuple[str, ...], allowed: set[str]) -> None:
    others = (path for path in SOURCES if place(path) not in allowed)
    assert offences(others, *modules) == []


def test_folders_on_storage_are_listed_in_one_place() -> None:
    """pyarrow's own listing fails when a folder comes or goes while it looks (issue 14)."""
    others = (path for path in SOURCES if place(path) != "storage.listing")
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
                if allowed is not None and place(path) not in allowed:
                    wrong.append(f"{path.relative_to(ROOT)}:{node.lineno} uses ray.{node.attr}")
    assert wrong == []


def test_no_file_is_longer_than_a_few_screens() -> None:
    lengths = {
        str(path.relative_to(ROOT)): len(path.read_text(encoding="utf-8").splitlines())
        for path in [*SOURCES, *(ROOT / "tests").rglob("*.py"), *(ROOT / "benchmarks").glob("*.py")]
    }
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
    modules = [
        "heliograph." + ".".join(path.relative_to(ROOT).with_suffix("").parts) for path in SOURCES
    ]
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
