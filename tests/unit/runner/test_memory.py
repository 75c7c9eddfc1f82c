"""Who ends when memory runs out, and where the numbers come from: cgroup v2, cgroup v1, the machine, a tree."""

import os

import pytest

from cyxwiz_runner.memory import memory_of, read_bounds
from cyxwiz_runner.memory_policy import Bound, Use, look_again_after, worst_offender
from cyxwiz_runner.process_tree import find_process

GIB = 2**30
ROOM, NEAR, FULL = (Bound("the machine", used * GIB, 100 * GIB) for used in (50, 90, 99))


@pytest.mark.parametrize(
    ("bounds", "uses", "offender"),
    [
        ([ROOM], [Use("hog", 60 * GIB, GIB)], None),  # more than it asked for, but there is room
        ([NEAR], [Use("hog", 60 * GIB, GIB)], None),
        ([FULL], [], None),  # not the jobs' doing
        ([FULL], [Use("a", 5 * GIB, 4 * GIB), Use("hog", 9 * GIB, 6 * GIB)], "hog"),
        ([FULL], [Use("large", 60 * GIB, 64 * GIB), Use("hog", 2 * GIB, GIB)], "hog"),  # large keeps to its request
        ([FULL], [Use("large", 60 * GIB, 64 * GIB), Use("small", GIB, 2 * GIB)], "large"),  # the node promised too much
        ([ROOM, FULL], [Use("hog", 2 * GIB, GIB)], "hog"),  # one bound is enough
        ([FULL], [Use("hog", 9 * GIB, GIB, ending=True), Use("b", 5 * GIB, GIB)], None),  # it gives back soon
    ],
)
def test_the_job_furthest_over_its_own_request_ends_when_a_bound_is_reached(bounds, uses, offender):
    assert worst_offender(bounds, uses) == offender


@pytest.mark.parametrize(
    ("used", "limit", "reached"),
    [(9.4, 10, False), (9.6, 10, True), (1021, 1024, False), (1023, 1024, True)],
)
def test_a_twentieth_is_kept_free_and_two_gibibytes_at_most(used, limit, reached):
    assert Bound("it", int(used * GIB), limit * GIB).is_reached is reached


def test_looks_come_closer_as_a_bound_does():
    assert look_again_after([ROOM]) == 1.0
    assert look_again_after([ROOM, NEAR]) == 0.1


def make_machine(tmp_path, cgroup):
    """A /proc and a /sys/fs/cgroup with a machine of 64 GiB, 16 of them used."""
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    cgroups.mkdir()
    (proc / "self" / "cgroup").write_text(cgroup)
    (proc / "meminfo").write_text(f"MemTotal: {64 * 2**20} kB\nMemFree: 1 kB\nMemAvailable: {48 * 2**20} kB\n")
    return proc, cgroups


def write(folder, **files):
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in files.items():
        (folder / f"memory.{name}").write_text(content)


def test_cgroup_v2_tells_the_containers_bound_without_what_the_kernel_can_drop(tmp_path):
    proc, cgroups = make_machine(tmp_path, "0::/pod/runner\n")
    stat = f"anon 1\ninactive_file {GIB}\n"
    write(cgroups / "pod" / "runner", current=str(7 * GIB), max=str(8 * GIB), stat=stat)
    assert read_bounds(cgroups, proc) == [
        Bound("the container", 6 * GIB, 8 * GIB),
        Bound("the machine", 16 * GIB, 64 * GIB),
    ]


def test_a_container_that_sees_only_its_own_cgroup_finds_it_at_the_top(tmp_path):
    proc, cgroups = make_machine(tmp_path, "0::/kubepods/somewhere\n")
    write(cgroups, current=str(GIB), max=str(8 * GIB), stat="")
    assert read_bounds(cgroups, proc)[0] == Bound("the container", GIB, 8 * GIB)


def test_cgroup_v1_tells_it_too(tmp_path):
    proc, cgroups = make_machine(tmp_path, "5:devices:/\n4:memory:/docker/a\n0::/\n")
    stat = f"inactive_file 1\ntotal_inactive_file {GIB}\n"
    write(cgroups / "memory" / "docker" / "a", usage_in_bytes=str(3 * GIB), limit_in_bytes=str(4 * GIB), stat=stat)
    assert read_bounds(cgroups, proc)[0] == Bound("the container", 2 * GIB, 4 * GIB)


@pytest.mark.parametrize(
    ("cgroup", "limit"), [("0::/a\n", {"max": "max\n"}), ("4:memory:/a\n", {"limit_in_bytes": str(2**63 - 4096)})]
)
def test_without_a_limit_only_the_machine_bounds(tmp_path, cgroup, limit):
    proc, cgroups = make_machine(tmp_path, cgroup)
    write(cgroups / "a", current="1", **limit)
    write(cgroups / "memory" / "a", usage_in_bytes="1", **limit)
    assert [bound.what for bound in read_bounds(cgroups, proc)] == ["the machine"]


def test_a_trees_own_pages_are_summed_and_shared_ones_counted_once(tmp_path):
    process = find_process(os.getpid())
    assert process is not None
    for pid, anon, shmem in ((process.pid, 100, 50), (1, 10, 40)):
        (tmp_path / str(pid)).mkdir()
        (tmp_path / str(pid) / "status").write_text(f"Name:\tx\nRssAnon:\t{anon} kB\nRssShmem:\t{shmem} kB\n")
    init = find_process(1)
    assert init is not None
    assert memory_of([process, init], tmp_path) == 160 * 1024
    assert memory_of([process]) > 2**20
