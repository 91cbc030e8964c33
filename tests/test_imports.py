"""Data flows one way: a module imports only from lines below its own, and within a line nothing goes in circles."""

import ast
import subprocess
import sys
from graphlib import TopologicalSorter
from pathlib import Path

import viceversa

SOURCE = Path(viceversa.__file__).parent
FLOW = """
__init__ cli __main__
demo
scale.*
serve.*
pages.*
training.* exchange.*
evaluation.*
translation.*
model.*
data.*
terminal distributed
device threads files
config errors
"""
"""From what a person starts down to what everything rests on. ROOM.* is all of a room."""


def modules() -> dict[str, ast.Module]:
    found = {}
    for path in SOURCE.rglob("*.py"):
        name = ".".join(path.relative_to(SOURCE).with_suffix("").parts)
        if path.name != "__init__.py" or name == "__init__":
            found[name] = ast.parse(path.read_text(encoding="utf-8"))
    return found


def imports(name: str, tree: ast.Module, known: set[str]) -> set[str]:
    """The modules of the package that one imports, also inside functions."""
    here = name.split(".")[:-1]
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.ImportFrom) and node.level:
            base = [*here[: len(here) + 1 - node.level], *(node.module or "").split(".")]
            target = ".".join(part for part in base if part)
            names = {".".join(filter(None, [target, alias.name])) for alias in node.names}
            found |= {n for n in names if n in known} or {target or "__init__"}
    return found - {name}


def levels(names: set[str]) -> dict[str, int]:
    level: dict[str, int] = {}
    lines = [line.split() for line in FLOW.split("\n") if line]
    patterns = [(entry, n) for n, line in enumerate(reversed(lines)) for entry in line]
    for entry, n in sorted(patterns, key=lambda pattern: pattern[0].endswith("*")):
        matching = {m for m in names if m.startswith(entry[:-1])} if entry.endswith("*") else {entry} & names
        for name in matching:
            level.setdefault(name, n)
    return level


def test_imports_go_one_way():
    trees = modules()
    level = levels(set(trees))
    assert set(trees) == set(level), f"no line for {set(trees) - set(level)}"
    graph = {name: imports(name, tree, set(trees)) - {"__init__"} for name, tree in trees.items()}
    upward = [f"{m} -> {d}" for m, ds in graph.items() for d in ds if level[d] > level[m] and m != "__init__"]
    assert not upward
    TopologicalSorter({m: ds for m, ds in graph.items() if m != "__init__"}).prepare()  # raises on a circle


def test_no_module_bears_the_name_of_a_function():
    """`viceversa.train` is the function, `viceversa.training.train` its room."""
    assert not {"train", "load", "evaluate", "translate"} & set(modules())


def test_settings_import_no_torch():
    code = "import sys, viceversa.config, viceversa; assert 'torch' not in sys.modules and 'numpy' not in sys.modules"
    subprocess.run([sys.executable, "-c", code], check=True)


def test_nothing_is_pickled():
    """Weights of others are read with weights_only, ours are safetensors."""
    for name, tree in modules().items():
        for node in ast.walk(tree):
            assert not (isinstance(node, ast.Import) and any(a.name == "pickle" for a in node.names)), name
            if isinstance(node, ast.Call) and ast.unparse(node.func) in ("torch.load", "torch.save"):
                safe = any(k.arg == "weights_only" and ast.unparse(k.value) == "True" for k in node.keywords)
                assert safe and ast.unparse(node.func) == "torch.load", name
