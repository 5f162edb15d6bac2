"""The command from end to end: real quantizer, real graph, the edge's own engine."""

import json

import pytest
from typer.testing import CliRunner

from tinyllava_edge.bundle import open_bundle, verify_bundle
from tinyllava_export.cli import app
from tinyllava_export.mmproj import LAYER_PARTS


def export(*arguments):
    # One thread: spinning threads of llama.cpp starve each other where tests share the cores.
    return CliRunner().invoke(app, [str(argument) for argument in (*arguments, "--threads", 1)])


def fails(*arguments):
    """Run a command that must end in one line on standard error and exit code 1."""
    result = export(*arguments)
    assert result.exit_code == 1
    assert result.stderr.startswith("error: ")
    assert result.stderr.count("\n") == 1
    assert result.stdout == ""
    return result.stderr


@pytest.fixture(scope="module")
def exported(tiny_folder, tmp_path_factory):
    out = tmp_path_factory.mktemp("out") / "tiny"
    result = export(tiny_folder, "--to", "gguf", "--bits", 4, "--out", out, "--json")
    assert result.exit_code == 0, result.stderr
    return out, json.loads(result.stdout)


def test_exported_bundle_opens_verifies_and_describes_itself(exported):
    out, _ = exported
    bundle = open_bundle(out)
    verify_bundle(bundle)
    manifest = bundle.manifest
    assert sorted(path.name for path in out.iterdir()) == [
        "MODEL_CARD.md",
        "llm.gguf",
        "manifest.json",
        "mmproj.gguf",
        "vision.onnx",
    ]
    assert {part.role: part.quantization for part in manifest.components} == {
        "llm": "Q4_K_M (q4_K 12, f32 5, q6_K 3)",
        "vision": "int8",
        "mmproj": "F16",
        "card": None,
    }
    assert (manifest.name, manifest.licence) == ("tiny", "apache-2.0")
    assert manifest.source.format == "transformers-llava"
    # 2 layers x 2 heads x 64 numbers x 2 bytes, keys and values.
    assert manifest.footprint.kv_kib_per_token == 1.0
    weights = (out / "llm.gguf").stat().st_size + (out / "vision.onnx").stat().st_size
    assert manifest.footprint.weights_mib == pytest.approx(weights / 2**20, abs=1e-3)


def test_json_says_what_the_manifest_says(exported):
    out, printed = exported
    manifest = json.loads((out / "manifest.json").read_text(encoding="utf-8"))
    assert set(printed) == {"bundle", "bytes", "components", "fidelity"}
    assert printed["components"] == manifest["components"]
    assert printed["fidelity"] == manifest["fidelity"]
    assert printed["bytes"] == sum(part["bytes"] for part in printed["components"])
    fidelity = printed["fidelity"]
    assert fidelity["pixels"]["max_abs_diff"] < 1e-6
    assert fidelity["vision"]["cosine_mean"] > 0.98
    assert 0 < fidelity["llm"]["kl_mean"] < 0.2
    assert fidelity["mmproj"]["cosine_min"] > 0.9999
    assert "llama.cpp pads with (122, 116, 104)" in fidelity["mmproj"]["caveat"]


def test_export_gives_the_same_bytes_when_repeated(exported, tiny_folder, tmp_path):
    out, _ = exported
    again = tmp_path / "tiny"
    assert export(tiny_folder, "--out", again).exit_code == 0
    for path in out.iterdir():
        assert (again / path.name).read_bytes() == path.read_bytes(), path.name


def test_float_bundle_answers_exactly_as_the_source_on_its_own_calibration(
    own_folder, tmp_path, draw_picture
):
    calibration = own_folder / "calibration"
    calibration.mkdir()
    draw_picture(2).save(calibration / "a.jpg")
    reading = {"name": "level", "value": "3", "unit": "m"}
    entries = [{"picture": "a.jpg", "question": "Is it safe?", "readings": [reading]}]
    (calibration / "questions.json").write_text(json.dumps(entries))
    out = tmp_path / "b"
    options = ["--bits", 32, "--vision-bits", 32, "--name", "exact", "--max-kl", 1e-4]
    result = export(own_folder, "--out", out, *options)
    assert result.exit_code == 0, result.stderr
    manifest = open_bundle(out).manifest
    llm = manifest.fidelity["llm"]
    assert manifest.name == "exact"
    assert llm["kl_mean"] < 1e-5
    assert (llm["top1_agreement"], llm["greedy_agreement"]) == (1.0, 1.0)
    measured_on = {"calibration": "checkpoint", "pictures": 1.0, "questions": 1.0}
    assert manifest.fidelity["measured_on"] == measured_on
    assert "cosine mean" in result.stdout
    assert "writing llm.gguf in F32" in result.stderr


def test_max_kl_leaves_nothing_when_it_is_exceeded(tiny_folder, tmp_path):
    result = export(tiny_folder, "--bits", 2, "--out", tmp_path / "b", "--max-kl", 1e-9)
    assert result.exit_code == 1
    assert "error: mean KL to the source is" in result.stderr.splitlines()[-1]
    assert list(tmp_path.iterdir()) == []


def test_nothing_is_left_when_a_step_fails_half_way(tiny_folder, tmp_path, monkeypatch):
    def full_disk(*_arguments, **_options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinyllava_export.pipeline.write_vision", full_disk)
    result = export(tiny_folder, "--out", tmp_path / "b")
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1].startswith("error: ")
    assert "No space left" in result.stderr
    assert list(tmp_path.iterdir()) == []


def test_dry_run_writes_nothing_and_estimates_the_sizes(exported, tiny_folder, tmp_path):
    _, printed = exported
    result = export(tiny_folder, "--out", tmp_path / "b", "--dry-run", "--json")
    assert result.exit_code == 0
    assert list(tmp_path.iterdir()) == []
    estimate = json.loads(result.stdout)
    assert estimate["dry_run"] is True
    real = {part["file"]: part["bytes"] for part in printed["components"]}
    for part in estimate["components"]:
        assert part["bytes"] == pytest.approx(real[part["file"]], rel=0.25)


def test_dry_run_prints_a_table_for_people(tiny_folder, tmp_path):
    result = export(tiny_folder, "--out", tmp_path / "b", "--dry-run")
    assert "would hold about" in result.stdout
    assert "llm.gguf" in result.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--quant", "Q9"], "quant 'Q9' is not known; known: "),
        (["--bits", "7"], "--bits 7 is not known"),
        (["--vision-bits", "4"], "--vision-bits 4 is not known"),
        (["--name", "n" * 101], "has 101 letters"),
        (["--to", "tflite"], "target 'tflite' is not known; known: gguf"),
    ],
)
def test_unknown_options_are_refused_with_the_known_ones(tiny_folder, tmp_path, options, message):
    assert message in fails(tiny_folder, "--out", tmp_path / "b", *options)
    assert list(tmp_path.iterdir()) == []


def test_existing_folder_is_refused(exported, tiny_folder):
    out, _ = exported
    assert "exists; choose another --out" in fails(tiny_folder, "--out", out)
    verify_bundle(open_bundle(out))


def test_checkpoint_that_is_none_is_refused(tmp_path):
    assert "does not exist" in fails(tmp_path / "nowhere", "--out", tmp_path / "b")
    (tmp_path / "file").write_text("")
    assert "not a folder" in fails(tmp_path / "file", "--out", tmp_path / "b")
    assert "no config.json" in fails(tmp_path, "--out", tmp_path / "b")


def test_missing_arguments_are_a_usage_error(tiny_folder):
    assert export(tiny_folder).exit_code == 2


def test_mmproj_that_strays_is_left_out_with_its_cosine(tiny_folder, tmp_path, monkeypatch):
    monkeypatch.setitem(LAYER_PARTS, "self_attn.q_proj", "attn_v")
    monkeypatch.setitem(LAYER_PARTS, "self_attn.v_proj", "attn_q")
    result = export(tiny_folder, "--out", tmp_path / "b", "--json")
    assert result.exit_code == 0, result.stderr
    assert not (tmp_path / "b" / "mmproj.gguf").exists()
    reason = json.loads(result.stdout)["fidelity"]["mmproj"]["left_out"]
    assert reason.startswith("llama.cpp's features have a cosine of 0.")


def test_mmproj_is_left_out_when_it_is_not_wanted(tiny_folder, tmp_path):
    result = export(tiny_folder, "--no-mmproj", "--out", tmp_path / "b", "--dry-run", "--json")
    files = [part["file"] for part in json.loads(result.stdout)["components"]]
    assert files == ["llm.gguf", "vision.onnx", "MODEL_CARD.md"]
