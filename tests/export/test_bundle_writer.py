import hashlib

import pytest

from tinyllava_export.bundle_writer import drafted_bundle
from tinyllava_export.errors import ExportError


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def write_bundle(out, text="new", *, force=False):
    with drafted_bundle(out, force=force) as draft:
        (draft.scratch / "intermediate").write_text("large")
        (draft.folder / "manifest.json").write_text(text)


def test_bundle_appears_whole_under_its_name(tmp_path):
    out = tmp_path / "bundle"
    with drafted_bundle(out, force=False) as draft:
        assert not out.exists()
        assert draft.folder.name == "bundle.partial"
        (draft.folder / "manifest.json").write_text("{}")
    assert names(tmp_path) == ["bundle"]
    assert names(out) == ["manifest.json"]


def test_add_lists_size_and_hash(tmp_path):
    with drafted_bundle(tmp_path / "bundle", force=False) as draft:
        (draft.folder / "llm.gguf").write_bytes(b"weights")
        component = draft.add("llm", "llm.gguf", "Q8_0")
        (draft.folder / "manifest.json").write_text("{}")
    assert draft.components == [component]
    assert component.bytes == 7
    assert component.sha256 == hashlib.sha256(b"weights").hexdigest()


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_nothing_is_left_when_writing_fails(tmp_path, error):
    def fail():
        with drafted_bundle(tmp_path / "bundle", force=False) as draft:
            (draft.folder / "llm.gguf").write_text("half")
            raise error

    with pytest.raises(error):
        fail()
    assert names(tmp_path) == []


def test_nothing_is_left_when_the_manifest_was_not_written(tmp_path):
    with (
        pytest.raises(ExportError, match="not complete"),
        drafted_bundle(tmp_path / "bundle", force=False),
    ):
        pass
    assert names(tmp_path) == []


def test_stale_partial_is_removed(tmp_path):
    stale = tmp_path / "bundle.partial"
    stale.mkdir()
    (stale / "leftover").write_text("old")
    write_bundle(tmp_path / "bundle")
    assert names(tmp_path) == ["bundle"]
    assert names(tmp_path / "bundle") == ["manifest.json"]


def test_existing_bundle_is_refused_and_replaced_only_by_force(tmp_path):
    out = tmp_path / "bundle"
    write_bundle(out, "old")
    with pytest.raises(ExportError, match="exists; choose another --out"):
        write_bundle(out)
    assert (out / "manifest.json").read_text() == "old"
    write_bundle(out, force=True)
    assert (out / "manifest.json").read_text() == "new"
    assert names(tmp_path) == ["bundle"]


def test_existing_bundle_stays_when_replacing_fails(tmp_path):
    out = tmp_path / "bundle"
    write_bundle(out, "old")

    def fail():
        with drafted_bundle(out, force=True):
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (out / "manifest.json").read_text() == "old"
    assert names(tmp_path) == ["bundle"]


def test_force_leaves_folders_alone_that_are_no_bundles(tmp_path):
    out = tmp_path / "home"
    out.mkdir()
    (out / "letter").write_text("dear")
    with pytest.raises(ExportError, match="is no bundle"):
        write_bundle(out, force=True)
    assert names(out) == ["letter"]
