import json
import os
import sys
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typer.testing import CliRunner

from tinyllava_devices.cli import app
from tinyllava_devices.detect import detect_machine, read_model
from tinyllava_devices.gpu import parse_gpus, read_gpus
from tinyllava_devices.processor import SPEED_FLAGS, parse_cpuinfo, read_processor

XEON = """processor\t: 0
model name\t: Intel(R) Xeon(R) Processor
flags\t\t: fpu sse2 fma avx f16c avx2 avx512f avx512_vnni

processor\t: 1
model name\t: another
flags\t\t: fpu
"""
ORIN = """processor\t: 0
BogoMIPS\t: 62.50
Features\t: fp asimd evtstrm aes asimdhp cpuid asimdrdm asimddp
CPU implementer\t: 0x41
"""
SMI = """NVIDIA H100 80GB HBM3, 81559, 81079, 570.86.15, 9.0
NVIDIA GeForce GTX 1650, 4096, 3900, 550.54.14, 7.5
"""
SMI_JETSON = "Orin (nvgpu), [N/A], [N/A], 540.4.0, 8.7\n"


def test_parse_cpuinfo_reads_the_first_processor_when_there_are_several():
    assert parse_cpuinfo(XEON) == (
        "Intel(R) Xeon(R) Processor",
        ("avx", "avx2", "fma", "f16c", "avx512f", "avx512_vnni"),
    )


def test_parse_cpuinfo_reads_features_when_on_arm():
    assert parse_cpuinfo(ORIN) == ("", ("asimd", "asimdhp", "asimddp"))


@given(st.text())
def test_parse_cpuinfo_gives_known_flags_only_when_the_text_is_anything(text):
    assert set(parse_cpuinfo(text)[1]) <= set(SPEED_FLAGS)


def test_read_processor_counts_the_cores_when_there_is_no_cpuinfo(tmp_path):
    processor = read_processor(tmp_path)
    assert processor.cores == len(os.sched_getaffinity(0))
    assert processor.features == ()


def test_parse_gpus_reads_each_line_when_there_are_two():
    first, second = parse_gpus(SMI)
    assert (first.name, first.memory_total_mib) == ("NVIDIA H100 80GB HBM3", 81559)
    assert (second.memory_free_mib, second.compute_capability) == (3900, "7.5")


def test_parse_gpus_has_no_memory_when_the_board_shares_it():
    (gpu,) = parse_gpus(SMI_JETSON)
    assert gpu.memory_total_mib is None
    assert gpu.memory_free_mib is None


@given(st.text())
def test_parse_gpus_never_fails_when_the_text_is_anything(text):
    assert all(
        gpu.memory_total_mib is None or gpu.memory_total_mib >= 0 for gpu in parse_gpus(text)
    )


def script(folder: Path, body: str) -> str:
    path = folder / "smi"
    path.write_text(f"#!{sys.executable}\n{body}\n")
    path.chmod(0o755)
    return str(path)


def test_read_gpus_is_empty_when_there_is_no_driver():
    assert read_gpus("no-such-command-of-a-driver") == []


def test_read_gpus_asks_the_command_when_there_is_one(tmp_path):
    command = script(tmp_path, f"print({SMI!r})")
    assert [gpu.driver for gpu in read_gpus(command)] == ["570.86.15", "550.54.14"]


def test_read_gpus_is_empty_when_the_driver_is_broken(tmp_path):
    command = script(tmp_path, f"print({SMI!r}); raise SystemExit(9)")
    assert read_gpus(command) == []


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({"proc/device-tree/model": "NVIDIA Jetson Orin Nano\0"}, "NVIDIA Jetson Orin Nano"),
        ({"sys/class/dmi/id/product_name": "ThinkCentre M70q\n"}, "ThinkCentre M70q"),
        ({"proc/device-tree/model": "\0", "sys/class/dmi/id/product_name": "PC\n"}, "PC"),
        ({}, ""),
    ],
)
def test_read_model_takes_the_first_name_when_files_are(files, expected, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    assert read_model(tmp_path) == expected


def test_detect_prints_one_object_when_asked_for_json():
    result = CliRunner().invoke(app, ["detect", "--json"])
    assert result.exit_code == 0
    shown = json.loads(result.stdout)
    assert shown["processor"]["cores"] == detect_machine().processor.cores
    assert 0 < shown["memory"]["available_mib"] <= shown["memory"]["total_mib"]


def test_detect_prints_a_table_when_asked_by_a_person():
    result = CliRunner().invoke(app, ["detect"])
    assert result.exit_code == 0
    assert "MiB available" in result.stdout


def test_command_exits_2_when_an_option_is_unknown():
    assert CliRunner().invoke(app, ["detect", "--colour"]).exit_code == 2
