"""The runner with the trainer that it is made for."""

from cyxwiz_crds import TrainingJobSpec
from cyxwiz_protocol.clock import boottime
from cyxwiz_protocol.job_folder import JobFolder, write_json
from cyxwiz_protocol.order import JobOrder
from cyxwiz_runner.spawn import DEFAULT_COMMAND


def test_a_warm_trainer_trains_a_model_on_the_cpu(runner):
    runner.start(trainer=list(DEFAULT_COMMAND), warm=1)
    snapshot = runner.wait_for_warm(1)
    assert "cnn" in snapshot.models

    order = JobOrder(
        assignment_id="digits-1",
        namespace="default",
        name="digits",
        attempt=1,
        spec=TrainingJobSpec.model_validate(
            {"model": {"name": "cnn"}, "dataset": {"uri": "builtin://digits"}, "epochs": 1, "resources": {"cpus": 1}}
        ),
    )
    folder = JobFolder.of(runner.state, order.assignment_id)
    folder.path.mkdir(parents=True)
    write_json(folder.order, order.wire())
    request = {
        "verb": "run",
        "assignmentId": order.assignment_id,
        "jobUid": "digits",
        "attempt": 1,
        "key": "default/digits",
        "memoryBytes": 2**30,
        "deadline": boottime() + 60,
    }
    assert runner.ask(**request) == {"ok": True}
    job = runner.wait_for_state(folder, "Reaped")
    assert (job.exit.cause, job.exit.exit_code) == ("Exited", 0), folder.log.read_text()
    assert job.start.mode == "Warm"
    assert (folder.model / "model.safetensors").is_file()
