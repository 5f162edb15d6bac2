"""What holds for the whole house: layers, documents, pins, the wheel."""

import re
import subprocess
import sys
from importlib.metadata import requires, version
from pathlib import Path

import make_cli
import make_tree
import pytest
from hatchling.builders.wheel import WheelBuilder

HOUSE = Path(__file__).resolve().parent.parent

WALK = """
import importlib, pkgutil, sys
names = []
for room in ("tinyllava_devices", "tinyllava_edge"):
    package = importlib.import_module(room)
    found = pkgutil.walk_packages(package.__path__, room + ".")
    names += [m.name for m in found if not m.name.endswith("__main__")]
for name in names:
    importlib.import_module(name)
loaded = {name.partition(".")[0] for name in sys.modules}
print(len(names))
print(*sorted(loaded & {"torch", "transformers", "llama_cpp", "onnxruntime", "amqtt"}))
"""


def test_edge_and_devices_load_no_runtime_when_every_module_is_imported():
    result = subprocess.run(
        [sys.executable, "-c", WALK], capture_output=True, text=True, check=False, cwd=HOUSE
    )
    assert result.returncode == 0, result.stderr
    count, loaded = result.stdout.splitlines()
    sources = [
        path
        for room in ("devices/tinyllava_devices", "edge/tinyllava_edge")
        for path in (HOUSE / room).rglob("*.py")
    ]
    # Every file but the two packages' own __init__.py, so none escaped the walk.
    assert int(count) == len([p for p in sources if p.name != "__main__.py"]) - 2
    assert loaded == "", f"loaded at import time: {loaded}"


def test_readme_tree_equals_the_disk_when_written_again():
    readme = (HOUSE / "README.md").read_text(encoding="utf-8")
    assert make_tree.tree_in(readme) == make_tree.tree(), "run `make docs`"


def test_every_source_file_says_what_it_is_when_listed():
    silent = [
        str(path.relative_to(HOUSE))
        for room in make_tree.ROOMS
        for path in (HOUSE / room).rglob("*.py")
        if path.name != "__init__.py" and not make_tree._promise(path)
    ]
    assert silent == []


def test_with_tree_replaces_the_right_block_when_there_are_several():
    readme = "a\n```text\nfirst\n```\nb\n```text\nedge/tinyllava_edge/  old\n  x.py\n```\nc\n"
    changed = make_tree.with_tree(readme, "edge/tinyllava_edge/  new\n")
    assert changed == "a\n```text\nfirst\n```\nb\n```text\nedge/tinyllava_edge/  new\n```\nc\n"
    with pytest.raises(ValueError, match="no ```text block"):
        make_tree.tree_in("# nothing here\n")


def test_cli_page_is_current_when_written_again():
    assert make_cli.PAGE.read_text(encoding="utf-8") == make_cli.page(), "run `make docs`"


def test_constraints_pin_everything_we_ask_for_and_name_no_place():
    lines = (HOUSE / "constraints.txt").read_text(encoding="utf-8").splitlines()
    pins = [line for line in lines if not line.startswith("#")]
    form = re.compile(r"^[a-z0-9-]+==[0-9A-Za-z.]+( ; [^/:]+)?$")
    assert [pin for pin in pins if not form.match(pin)] == []
    pinned = {pin.partition("==")[0] for pin in pins}
    asked = {
        re.split(r"[^A-Za-z0-9_.-]", requirement)[0].lower().replace("_", "-")
        for requirement in requires("tinyllava-edge") or []
    }
    assert asked - {"tinyllava-edge"} <= pinned


def test_changelog_names_the_version_when_installed():
    text = (HOUSE / "CHANGELOG.md").read_text(encoding="utf-8")
    assert f"## {version('tinyllava-edge')}" in text


def test_wheel_holds_every_file_of_the_packages_when_built(tmp_path):
    import zipfile

    (wheel,) = WheelBuilder(str(HOUSE)).build(directory=str(tmp_path), versions=["standard"])
    with zipfile.ZipFile(wheel) as archive:
        held = set(archive.namelist())
    expected = {
        str(path.relative_to(HOUSE / room).parent / path.name)
        for room in ("devices", "edge", "train", "export")
        for path in (HOUSE / room).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert expected - held == set()
    assert "tinyllava_edge/py.typed" in held
