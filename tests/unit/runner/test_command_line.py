"""The runner's options."""

import pytest

from cyxwiz_runner.__main__ import main
from cyxwiz_runner.runner import Options


def test_help_names_every_option_and_exit_status(capsys):
    with pytest.raises(SystemExit):
        main(["--help"])
    text = capsys.readouterr().out
    for word in (
        "--state",
        "--warm ",
        "--warm-gpu",
        "--cpus",
        "--data-root",
        "--grace",
        "--uids",
        "--memory",
        "--mps-command",
        "exit status",
    ):
        assert word in text


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ((), "--state"),
        (("--state", "x", "--warm", "-1"), "-1 is negative"),
        (("--state", "x", "--cpus", "0"), "0 is not at least 1"),
        (("--state", "x", "--grace", "nan"), "nan is not from 0 to 3600"),
        (("--state", "x", "--memory", "much"), "much is no size"),
        (("--state", "x", "--uids", "0-10"), "0-10 is not FIRST-LAST"),
        (("--state", "x", "--uids", "20-10"), "20-10 is not FIRST-LAST"),
        (("--state", "x", "--trainer-command", "python"), "not JSON"),
        (("--state", "x", "--trainer-command", "[]"), "not a JSON list of strings"),
    ],
)
def test_wrong_usage_is_told_in_a_sentence(arguments, words, capsys):
    with pytest.raises(SystemExit) as raised:
        main(arguments)
    assert raised.value.code == 2
    assert words in capsys.readouterr().err


def test_each_gpu_gets_one_warm_trainer_however_often_it_is_named():
    assert Options(warm=2, warm_gpus=("GPU-a", "GPU-b", "GPU-a")).wanted() == {(): 2, ("GPU-a",): 1, ("GPU-b",): 1}
