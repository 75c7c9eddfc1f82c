"""What can go wrong for reasons outside this package, told in one sentence for the person at the terminal."""


class DevclusterError(Exception):
    """The message says what happened and what to do next; nothing was left behind."""


class KubectlError(DevclusterError):
    """kubectl ended with a status other than 0; `stderr` holds what it said."""

    def __init__(self, arguments: tuple[str, ...], returncode: int, stderr: str) -> None:
        super().__init__(f"kubectl {' '.join(arguments)}: exit status {returncode}: {stderr}")
        self.returncode = returncode
        self.stderr = stderr
