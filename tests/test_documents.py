"""What the documents and comments name is there, whatever was moved."""

import ast
import importlib
import re
import subprocess
from pathlib import Path
from textwrap import indent

import heliograph

ROOT = Path(__file__).parent.parent
FOLDERS = "model|pipeline|jobs|recipes|deploy|benchmarks|docs|tests"
PATH = re.compile(rf"(?<![\w/.-])(?:{FOLDERS})/[\w./-]*\.(?:py|md|yaml|json|js|css|html|sh)\b")
PYTHON = re.compile(r"^```python\n(.*?)^```$", re.DOTALL | re.MULTILINE)


def texts() -> list[Path]:
    """All that git keeps and that is written by hand."""
    listed = subprocess.run(
        ["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    kept = [ROOT / name for name in listed.stdout.splitlines()]
    return [path for path in kept if path.is_file() and path.suffix in (".md", ".py", ".yaml", "")]


def test_each_file_that_is_named_is_there() -> None:
    named = {
        (path.relative_to(ROOT), name)
        for path in texts()
        for name in PATH.findall(path.read_text(encoding="utf-8"))
    }
    assert len(named) > 100
    assert [pair for pair in sorted(named) if not (ROOT / pair[1]).is_file()] == []


def test_what_the_readme_s_examples_import_is_there() -> None:
    blocks = PYTHON.findall((ROOT / "README.md").read_text(encoding="utf-8"))
    assert blocks
    for block in blocks:
        for node in ast.walk(ast.parse("def example():\n" + indent(block, "    "))):
            if isinstance(node, ast.ImportFrom) and str(node.module).startswith("heliograph"):
                module = importlib.import_module(str(node.module))
                assert [name.name for name in node.names if not hasattr(module, name.name)] == []
            elif isinstance(node, ast.Attribute) and ast.unparse(node.value) == "heliograph":
                assert hasattr(heliograph, node.attr), node.attr
