"""Opening and verifying bundle folders."""

from __future__ import annotations

import json
import shutil

import pytest

from tinyllava_edge.bundle import open_bundle, verify_bundle
from tinyllava_edge.errors import BundleError


@pytest.fixture
def folder(tiny_model, tmp_path):
    """A copy that a test may damage."""
    return shutil.copytree(tiny_model.folder, tmp_path / "bundle")


def rewrite(folder, index, **fields):
    """Change fields of one component in the manifest."""
    path = folder / "manifest.json"
    manifest = json.loads(path.read_bytes())
    manifest["components"][index] |= fields
    path.write_text(json.dumps(manifest))


def test_open_bundle_gives_paths_by_role_when_all_is_well(folder):
    bundle = open_bundle(folder)
    assert bundle.path("llm") == folder / "llm.gguf"
    assert bundle.has("vision")
    assert not bundle.has("decoder")
    with pytest.raises(BundleError, match="'decoder', it has llm, vision, card"):
        bundle.path("decoder")


def test_open_bundle_works_when_the_folder_itself_is_a_link(folder, tmp_path):
    link = tmp_path / "current"
    link.symlink_to(folder)
    assert open_bundle(link).path("llm").is_file()


@pytest.mark.parametrize(
    "file",
    [
        "/etc/passwd",
        "../llm.gguf",
        "a/../../llm.gguf",
        "./llm.gguf",
        "a//llm.gguf",
        "..\\llm.gguf",
        "C:llm.gguf",
        "~/llm.gguf",
        "llm\x00.gguf",
        "llm\n.gguf",
    ],
)
def test_open_bundle_refuses_when_a_path_leaves_the_folder(folder, file):
    rewrite(folder, 0, file=file)
    with pytest.raises(BundleError, match="leaves the bundle or is not a plain") as caught:
        open_bundle(folder)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("suffix", [".bin", ".pt", ".PKL", ".pth", ".pickle"])
def test_open_bundle_refuses_when_a_file_needs_unpickling(folder, suffix):
    (folder / "llm.gguf").rename(folder / f"llm{suffix}")
    rewrite(folder, 0, file=f"llm{suffix}")
    with pytest.raises(BundleError, match="would need unpickling"):
        open_bundle(folder)


def test_open_bundle_refuses_when_a_file_is_a_link(folder, tmp_path):
    (folder / "llm.gguf").rename(tmp_path / "elsewhere.gguf")
    (folder / "llm.gguf").symlink_to(tmp_path / "elsewhere.gguf")
    with pytest.raises(BundleError, match=r"llm\.gguf is a link"):
        open_bundle(folder)


def test_open_bundle_refuses_when_a_parent_inside_it_is_a_link(folder, tmp_path):
    (tmp_path / "real").mkdir()
    (folder / "llm.gguf").rename(tmp_path / "real" / "llm.gguf")
    (folder / "sub").symlink_to(tmp_path / "real")
    rewrite(folder, 0, file="sub/llm.gguf")
    with pytest.raises(BundleError, match="sub is a link"):
        open_bundle(folder)


def test_open_bundle_refuses_when_the_manifest_is_a_link(folder, tmp_path):
    (folder / "manifest.json").rename(tmp_path / "manifest.json")
    (folder / "manifest.json").symlink_to(tmp_path / "manifest.json")
    with pytest.raises(BundleError, match=r"manifest\.json is a link"):
        open_bundle(folder)


def test_open_bundle_refuses_when_a_file_is_missing(folder):
    (folder / "vision.onnx").unlink()
    with pytest.raises(BundleError, match=r"vision\.onnx cannot be opened .* copy or export"):
        open_bundle(folder)


def test_open_bundle_refuses_when_a_file_is_a_folder(folder):
    (folder / "vision.onnx").unlink()
    (folder / "vision.onnx").mkdir()
    with pytest.raises(BundleError, match=r"vision\.onnx is not a file"):
        open_bundle(folder)


def test_open_bundle_refuses_when_a_size_differs(folder):
    with (folder / "llm.gguf").open("ab") as file:
        file.write(b"x")
    with pytest.raises(BundleError, match=r"llm\.gguf has \d+ bytes, the manifest says \d+"):
        open_bundle(folder)


def test_open_bundle_refuses_when_a_role_or_file_is_listed_twice(folder):
    rewrite(folder, 1, role="llm")
    with pytest.raises(BundleError, match="role 'llm' is listed twice"):
        open_bundle(folder)
    rewrite(folder, 1, role="vision", file="LLM.gguf")
    with pytest.raises(BundleError, match=r"file 'LLM\.gguf' is listed twice"):
        open_bundle(folder)


def test_open_bundle_refuses_when_the_manifest_lists_itself(folder):
    rewrite(folder, 2, file="manifest.json")
    with pytest.raises(BundleError, match="lists itself"):
        open_bundle(folder)


def test_verify_bundle_reports_progress_up_to_all_bytes_when_hashes_are_right(folder):
    seen = []
    verify_bundle(open_bundle(folder), lambda done, total: seen.append((done, total)))
    assert (
        seen[-1][0]
        == seen[-1][1]
        == sum(
            (folder / name).stat().st_size for name in ("llm.gguf", "vision.onnx", "MODEL_CARD.md")
        )
    )


def test_verify_bundle_refuses_when_one_byte_differs(folder):
    data = bytearray((folder / "vision.onnx").read_bytes())
    data[len(data) // 2] ^= 1
    (folder / "vision.onnx").write_bytes(data)
    bundle = open_bundle(folder)
    with pytest.raises(BundleError, match=r"vision\.onnx has sha256 .*copy or export"):
        verify_bundle(bundle)
