"""The structure of the package: imports point one way, and dangerous calls do not occur."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

import ovrs

PACKAGE = Path(ovrs.__file__).parent
# Dotted name and syntax tree of every module.
MODULES = {
    ".".join(file.relative_to(PACKAGE.parent).with_suffix("").parts).removesuffix(".__init__"): ast.parse(
        file.read_text(encoding="utf-8"), str(file)
    )
    for file in sorted(PACKAGE.rglob("*.py"))
}
# A module imports from its own room and from rooms on lines further up, never from further down or beside.
LEVELS = (
    ("files", "structures", "errors", "plain_yaml", "scores", "caching"),
    ("config", "vocabulary"),
    ("visualization",),
    ("zoo",),
    ("backbones",),
    ("heads",),
    ("losses", "inference"),
    ("segmenter",),
    ("data",),
    ("preparation", "raster"),
    ("evaluation", "gallery"),
    ("engine",),
    ("measure", "plots", "pretraining"),
    ("reproduction",),
    ("ranking",),
    ("predictor",),
    ("explain",),
    ("demo",),
    ("serve",),
    ("cli",),
)
LEVEL = {room: level for level, rooms in enumerate(LEVELS) for room in rooms}


def imported(tree: ast.Module) -> Iterator[str]:
    """Yield the dotted names of all imports, lazy ones included, without those that only annotations use."""
    nodes = [tree]
    while nodes:
        node = nodes.pop()
        if isinstance(node, ast.If) and ast.unparse(node.test) in ("TYPE_CHECKING", "typing.TYPE_CHECKING"):
            nodes.extend(node.orelse)
            continue
        nodes.extend(ast.iter_child_nodes(node))
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"line {node.lineno}: relative import; name the module in full"
            # "from ovrs import data" and "from ovrs.data import card" both name a module in their second half.
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def room(name: str) -> str | None:
    """Return the room of a dotted name; ``None`` outside the package and for the package itself."""
    parts = name.split(".")
    return parts[1] if parts[0] == "ovrs" and len(parts) > 1 and parts[1] != "__version__" else None


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Yield (name as written, call) of every call."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func), node


def test_package_is_read_whole():
    assert {"ovrs", "ovrs.config", "ovrs.backbones.clip", "ovrs.heads.blocks.swin"} <= set(MODULES)
    assert {room(name) for name in MODULES} - {None} <= set(LEVEL), "tell LEVELS where the new room stands"


def test_imports_are_found_wherever_they_stand():
    text = """
import ovrs.heads.gsnet
from ovrs import data, segmenter
if TYPE_CHECKING:
    from ovrs.engine import trainer
else:
    import ovrs.losses
def lazily():
    from ovrs.inference.sliding import SlidingWindow
"""
    found = {room(name) for name in imported(ast.parse(text))}
    assert found == {"heads", "data", "segmenter", "losses", "inference"}


@pytest.mark.parametrize("name", MODULES)
def test_imports_point_one_way(name):
    own = room(name)
    rooms = {room(other) for other in imported(MODULES[name])} - {None, own}
    # The package itself stands above all rooms: it hands out the public API.
    upwards = {other for other in rooms if own is not None and LEVEL[other] >= LEVEL[own]}
    assert not upwards, f"{name} ({own}) must not import {', '.join(sorted(upwards))}"


def test_package_alone_imports_no_room():
    code = "import sys, ovrs; print(ovrs.__version__, *(name for name in sys.modules if name.startswith('ovrs.')))"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert result.stdout.split() == [ovrs.__version__]


def test_no_module_imports_itself_by_a_detour():
    trees = {name: tree for name, tree in MODULES.items() if name != "ovrs"}
    graph = {name: set() for name in trees}
    for name, tree in trees.items():
        for other in imported(tree):
            # "ovrs.config.get_cfg" is a name in the module "ovrs.config".
            target = other if other in trees else other.rpartition(".")[0]
            graph[name] |= {target} & trees.keys()
    assert any(graph.values())
    TopologicalSorter(graph).prepare()  # raises CycleError, with the cycle


@pytest.mark.parametrize("name", MODULES)
def test_module_neither_unpickles_nor_prints(name):
    for call, node in calls(MODULES[name]):
        keywords = {keyword.arg: ast.unparse(keyword.value) for keyword in node.keywords}
        where = f"{name}, line {node.lineno}: {call}"
        assert call not in ("eval", "exec", "os.system"), where
        assert call != "print" or room(name) == "cli", where
        assert call not in ("yaml.load", "yaml.unsafe_load", "yaml.full_load"), (
            f"{where}; yaml.safe_load is the safe one"
        )
        assert not call.startswith(("pickle.", "joblib.")), where
        if call == "torch.load":
            assert keywords.get("weights_only") == "True", f"{where} without weights_only=True runs pickled code"
        if call in ("np.load", "numpy.load"):
            assert keywords.get("allow_pickle", "False") == "False", f"{where} must not unpickle"


def test_rooms_do_not_import_optional_packages_at_the_top():
    optional = {"rasterio", "transformers", "matplotlib", "pyogrio", "pyarrow", "ray"}
    for name, tree in MODULES.items():
        top = {
            found.split(".")[0]
            for node in tree.body
            if isinstance(node, (ast.Import, ast.ImportFrom))
            for found in imported(ast.Module([node], []))
        }
        assert not top & optional, f"{name} needs {top & optional} just to be imported"
