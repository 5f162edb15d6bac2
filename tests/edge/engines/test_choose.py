"""Which engine a bundle gets."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from contextlib import closing

import pytest

from tinyllava_edge.bundle import open_bundle
from tinyllava_edge.engines.choose import EngineOptions, open_engine
from tinyllava_edge.engines.llama_cpp import LlamaCppEngine
from tinyllava_edge.errors import BundleError


@pytest.fixture
def folder(tiny_model, tmp_path):
    return shutil.copytree(tiny_model.folder, tmp_path / "bundle")


def rewrite(folder, change):
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    change(manifest)
    path.write_text(json.dumps(manifest))
    return open_bundle(folder)


def test_open_engine_takes_llama_cpp_when_there_is_a_gguf_and_a_tower(tiny_model):
    with closing(open_engine(open_bundle(tiny_model.folder))) as engine:
        assert isinstance(engine, LlamaCppEngine)
        assert engine.name == "tiny"


def test_open_engine_refuses_when_no_engine_runs_the_components(folder):
    bundle = rewrite(folder, lambda m: m["components"].pop(0))
    with pytest.raises(BundleError, match=r"has vision, card, .*export with --to gguf"):
        open_engine(bundle)


def test_open_engine_refuses_before_loading_when_the_memory_is_short(folder):
    bundle = rewrite(folder, lambda m: m["footprint"].update(weights_mib=1e9))
    with pytest.raises(BundleError, match="MiB short"):
        open_engine(bundle)
    open_engine(bundle, EngineOptions(check_memory=False)).close()


@pytest.mark.parametrize("fields", [{"threads": 0}, {"context_tokens": 0}, {"parallel": 65}])
def test_options_refuse_when_a_number_is_out_of_bounds(fields):
    with pytest.raises(ValueError, match="give"):
        EngineOptions(**fields)


@pytest.mark.parametrize("missing", ["llama_cpp", "onnxruntime"])
def test_open_engine_names_the_extra_when_a_runtime_is_missing(tiny_model, missing):
    """In a fresh interpreter, where a None in sys.modules makes the import fail."""
    script = (
        "import sys, pathlib\n"
        f"sys.modules[{missing!r}] = None\n"
        "from tinyllava_edge.bundle import open_bundle\n"
        "from tinyllava_edge.engines.choose import open_engine\n"
        "from tinyllava_edge.errors import BackendMissing\n"
        "try:\n"
        f"    open_engine(open_bundle(pathlib.Path({str(tiny_model.folder)!r})))\n"
        "except BackendMissing as error:\n"
        "    print(error)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        text=True,
        check=True,
        env={"PYTHONPATH": ":".join(sys.path)},
    )
    assert "pip install 'tinyllava-edge[gguf]'" in result.stdout
