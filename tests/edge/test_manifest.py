"""Reading and writing ``manifest.json``."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_edge.errors import BundleError
from tinyllava_edge.manifest import parse_manifest, read_manifest, write_manifest


def test_manifest_survives_when_written_and_read_again(tiny_model, tmp_path):
    manifest = read_manifest(tiny_model.folder)
    write_manifest(manifest, tmp_path)
    assert read_manifest(tmp_path) == manifest
    assert manifest.semantics == tiny_model.semantics


def test_read_manifest_names_the_folder_when_there_is_none(tmp_path):
    with pytest.raises(BundleError, match=r"no manifest\.json"):
        read_manifest(tmp_path / "nothing")


def test_read_manifest_refuses_when_it_is_huge(tmp_path):
    (tmp_path / "manifest.json").write_bytes(b" " * ((1 << 20) + 1))
    with pytest.raises(BundleError, match="larger than 1024 KiB"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("version", [2, 99])
def test_parse_manifest_says_upgrade_when_the_schema_is_newer(version):
    text = json.dumps({"schema_version": version, "a field of the future": 1}).encode()
    with pytest.raises(BundleError, match="upgrade with `pip install -U tinyllava-edge`"):
        parse_manifest(text, "here")


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"extra": 1}, "extra"),
        ({"schema_version": 0}, "schema_version"),
        ({"components": []}, "components"),
        ({"source": {"format": "x", "sha256": "12"}}, "source.sha256"),
        ({"footprint": {"weights_mib": -1, "kv_kib_per_token": 1, "vision_activation_mib": 1}},
         "footprint.weights_mib"),
    ],
)  # fmt: skip
def test_parse_manifest_names_the_field_when_it_is_wrong(tiny_model, change, field):
    good = json.loads((tiny_model.folder / "manifest.json").read_bytes())
    with pytest.raises(BundleError, match=f"field {field}:") as caught:
        parse_manifest(json.dumps(good | change).encode(), "here")
    assert "\n" not in str(caught.value)


@given(st.binary() | st.recursive(
    st.none() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
).map(lambda value: json.dumps(value).encode()))  # fmt: skip
def test_parse_manifest_raises_bundle_error_alone_when_given_anything(text):
    with pytest.raises(BundleError):
        parse_manifest(text, "here")
