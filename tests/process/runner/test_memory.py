"""Host memory runs out under real jobs."""

MIB = 2**20


def test_the_job_that_took_more_than_it_asked_for_is_killed_and_its_neighbour_goes_on(runner):
    runner.start("--memory", "400Mi")
    neighbour = runner.run("allocate", bytes=150 * MIB, memory_bytes=300 * MIB)
    runner.wait_for_state(neighbour, "Running")
    hog = runner.run("allocate", bytes=250 * MIB, memory_bytes=50 * MIB)
    record = runner.wait_for_state(hog, "Reaped").exit
    assert record.cause == "OutOfHostMemory"
    assert 200 * MIB < record.memory_peak_bytes < 400 * MIB
    assert "and had asked for 50Mi" in hog.log.read_text()
    assert runner.job(neighbour).state == "Running"


def test_a_job_may_use_more_than_it_asked_for_while_there_is_room(runner, until):
    runner.start("--memory", "8Gi")
    folder = runner.run("allocate", bytes=100 * MIB, memory_bytes=10 * MIB)
    until((folder.path / "allocated").exists, "its memory")
    runner.run("end")
    assert runner.job(folder).state == "Running"


def test_memory_that_a_daemon_took_counts_for_its_job(runner):
    runner.start("--memory", "300Mi")
    folder = runner.run("allocate-in-daemon", bytes=400 * MIB, memory_bytes=50 * MIB)
    assert runner.wait_for_state(folder, "Reaped").exit.cause == "OutOfHostMemory"


def test_a_job_that_keeps_to_its_request_is_left_alone(runner):
    runner.start("--memory", "100Mi")
    folder = runner.run("work", memory_bytes=50 * MIB)
    runner.wait_for_state(folder, "Running")
    runner.wait_for_state(runner.run("end"), "Reaped")
    assert runner.job(folder).state == "Running"
