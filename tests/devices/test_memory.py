from pathlib import Path

import psutil
from hypothesis import given
from hypothesis import strategies as st

from tinyllava_devices.memory import GroupLimit, bounded_memory, group_limits, read_memory

MIB = 2**20

# A container with `--memory 512m` on a kernel with control groups v2: its own group is the mount.
DOCKER_V2 = {
    "proc/self/cgroup": "0::/\n",
    "sys/fs/cgroup/memory.max": "536870912\n",
    "sys/fs/cgroup/memory.current": "209715200\n",
    "sys/fs/cgroup/memory.stat": "anon 104857600\nfile 94371840\ninactive_file 83886080\n",
}
# A systemd service with MemoryMax=256M inside a slice that is allowed 1 GiB.
SERVICE_V2 = {
    "proc/self/cgroup": "0::/system.slice/gateway.service\n",
    "sys/fs/cgroup/system.slice/memory.max": "1073741824\n",
    "sys/fs/cgroup/system.slice/memory.current": "1020054732\n",
    "sys/fs/cgroup/system.slice/memory.stat": "inactive_file 0\n",
    "sys/fs/cgroup/system.slice/gateway.service/memory.max": "268435456\n",
    "sys/fs/cgroup/system.slice/gateway.service/memory.current": "104857600\n",
    "sys/fs/cgroup/system.slice/gateway.service/memory.stat": "inactive_file 0\n",
}
# A hybrid machine, recorded: v1 carries memory, nothing limits it.
HYBRID_UNLIMITED = {
    "proc/self/cgroup": "8:pids:/\n4:memory:/session/1\n0::/\n",
    "sys/fs/cgroup/memory/session/1/memory.limit_in_bytes": "9223372036854771712\n",
    "sys/fs/cgroup/memory/session/1/memory.usage_in_bytes": "26460160\n",
    "sys/fs/cgroup/memory/session/1/memory.stat": "cache 9609216\ntotal_inactive_file 4096\n",
}
# JetPack 5 and older Docker: v1, and the path is the host's, which the container does not see.
DOCKER_V1 = {
    "proc/self/cgroup": "11:cpu,cpuacct:/docker/ab12\n5:memory:/docker/ab12\n1:name=systemd:/\n",
    "sys/fs/cgroup/memory/memory.limit_in_bytes": "1073741824\n",
    "sys/fs/cgroup/memory/memory.usage_in_bytes": "314572800\n",
    "sys/fs/cgroup/memory/memory.stat": "total_cache 9\ntotal_inactive_file 104857600\n",
}


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def test_group_limits_counts_cache_as_free_when_in_a_v2_container(tmp_path):
    (limit,) = group_limits(machine(tmp_path, DOCKER_V2))
    assert limit.limit == 512 * MIB
    assert limit.left == (512 - 200 + 80) * MIB
    assert limit.source.endswith("sys/fs/cgroup/memory.max")


def test_group_limits_reads_every_level_when_groups_are_nested(tmp_path):
    limits = group_limits(machine(tmp_path, SERVICE_V2))
    assert [limit.limit // MIB for limit in limits] == [256, 1024]
    memory = bounded_memory(8192 * MIB, 6000 * MIB, limits)
    assert memory.total_mib == 256
    assert round(memory.available_mib) == 51  # the slice has 51 MiB left, the service 156
    assert memory.limited_by is not None
    assert "gateway.service" in memory.limited_by


def test_bounded_memory_ignores_a_limit_when_it_exceeds_the_machine(tmp_path):
    limits = group_limits(machine(tmp_path, HYBRID_UNLIMITED))
    assert len(limits) == 1
    memory = bounded_memory(4096 * MIB, 3000 * MIB, limits)
    assert (memory.total_mib, memory.available_mib, memory.limited_by) == (4096, 3000, None)


def test_group_limits_finds_the_mount_when_the_path_is_the_hosts(tmp_path):
    (limit,) = group_limits(machine(tmp_path, DOCKER_V1))
    assert limit.limit == 1024 * MIB
    assert limit.left == (1024 - 300 + 100) * MIB


def test_group_limits_is_empty_when_there_are_no_control_groups(tmp_path):
    assert group_limits(tmp_path) == []


def test_group_limits_is_empty_when_v2_sets_no_limit(tmp_path):
    files = DOCKER_V2 | {"sys/fs/cgroup/memory.max": "max\n"}
    assert group_limits(machine(tmp_path, files)) == []


def test_group_limits_leaves_nothing_when_usage_exceeds_the_limit(tmp_path):
    files = DOCKER_V2 | {"sys/fs/cgroup/memory.current": "999999999\n"}
    (limit,) = group_limits(machine(tmp_path, files))
    assert limit.left == 0


def test_group_limits_passes_over_a_group_when_its_figures_are_no_numbers(tmp_path):
    files = DOCKER_V2 | {"sys/fs/cgroup/memory.current": "?\n"}
    assert group_limits(machine(tmp_path, files)) == []


def test_group_limits_stays_under_the_mount_when_the_path_climbs(tmp_path):
    files = DOCKER_V2 | {"proc/self/cgroup": "0::/../../../other\n", "other/memory.max": "1\n"}
    assert [limit.limit for limit in group_limits(machine(tmp_path, files))] == [512 * MIB]


def test_read_memory_is_within_the_machine_when_read_here():
    memory = read_memory()
    assert 0 < memory.available_mib <= memory.total_mib
    assert memory.total_mib <= psutil.virtual_memory().total / MIB


@given(
    total=st.integers(1, 2**45),
    groups=st.lists(st.tuples(st.integers(0, 2**63), st.integers(0, 2**63)), max_size=4),
)
def test_bounded_memory_never_exceeds_machine_or_limits_when_combined(total, groups):
    limits = [GroupLimit(limit, min(left, limit), "file") for limit, left in groups]
    memory = bounded_memory(total, total // 2, limits)
    assert memory.total_mib == min([total, *(g.limit for g in limits)]) / MIB
    assert memory.available_mib <= memory.total_mib
    assert all(memory.available_mib <= g.left / MIB for g in limits)
