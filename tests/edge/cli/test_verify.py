"""``tinyllava-edge verify``."""

from __future__ import annotations

import json
import shutil

from typer.testing import CliRunner

from tinyllava_edge.cli import app


def verify(*words):
    return CliRunner().invoke(app, ["verify", *map(str, words)])


def test_verify_lists_the_files_when_all_is_well(tiny_model):
    result = verify(tiny_model.folder, "--json")
    assert result.exit_code == 0
    answer = json.loads(result.stdout)
    assert answer["ok"]
    assert [file["role"] for file in answer["files"]] == ["llm", "vision", "card"]
    assert "3 files" in verify(tiny_model.folder).stdout


def test_verify_exits_1_in_one_line_when_a_byte_differs(tiny_model, tmp_path):
    folder = shutil.copytree(tiny_model.folder, tmp_path / "bundle")
    data = bytearray((folder / "vision.onnx").read_bytes())
    data[-1] ^= 1
    (folder / "vision.onnx").write_bytes(data)
    result = verify(folder, "--json")
    assert result.exit_code == 1
    assert result.stdout == ""
    assert result.stderr.startswith(f"error: {folder}: vision.onnx has sha256")
    assert result.stderr.count("\n") == 1
