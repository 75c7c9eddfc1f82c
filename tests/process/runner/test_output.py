"""What jobs print, on the output of a real runner."""


def test_what_a_job_prints_is_on_the_runners_output_under_its_name(runner, until):
    runner.start()
    folder = runner.run("print", lines=[["loss 0.5", 2]])
    line = "default/job1 1 | loss 0.5\n"
    until(lambda: runner.output.read_text().count(line) == 2, "the lines")
    runner.stop(folder, 0)
    runner.wait_for_state(folder, "Reaped")
    assert "default/job1 1 | printed before the start\n" in runner.output.read_text()


def test_a_job_that_prints_without_end_neither_fills_the_disk_nor_hides_its_neighbour(runner, until):
    runner.start()
    loud = runner.run("print", lines=[["x" * 500_000, 80]])
    quiet = runner.run("print", lines=[["here", 1]])
    until((loud.path / "printed").exists, "40 MB")
    until(lambda: loud.log.stat().st_size < 17 * 2**20, "a shorter log")
    until(lambda: "job2 1 | here\n" in runner.output.read_text(), "the neighbour's line")
    assert "cyxwiz-runner: the log grew over 16Mi" in loud.log.read_text()
    assert runner.output.stat().st_size < 100_000
    assert runner.job(quiet).state == "Running"
