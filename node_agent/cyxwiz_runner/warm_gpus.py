"""On which GPUs trainers wait: those of the command line, or those the agent names."""

from __future__ import annotations

from cyxwiz_protocol.runner_api import Answer

from .pool import Pool


class WarmGpus:
    """The agent's word on it, where the command line leaves it to the agent."""

    def __init__(self, pool: Pool, *, agent_names_them: bool) -> None:
        self.pool = pool
        self.named: list[str] | None = [] if agent_names_them else None
        """Sorted; None when it is not the agent's to say."""

    def keep_on(self, gpus: list[str]) -> Answer:
        """A trainer is kept on each of `gpus` and on no other."""
        if self.named is None:
            message = "the runner's command line says which GPUs have warm trainers: start it with --warm-gpu all"
            return Answer(ok=False, reason="BadRequest", message=message)
        named = sorted(set(gpus))
        if named != self.named:
            self.named = named
            self.pool.keep_on(named)
        return Answer(ok=True)
