"""/healthz, /readyz and /metrics over HTTP. kopf's own endpoint serves one path; the chart wants two answers."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST

from .metrics import Metrics

Check = Callable[[], str | None]
"""None, or why not."""


@asynccontextmanager
async def serve(
    *, healthy: Check, ready: Check, metrics: Metrics, health_port: int, metrics_port: int
) -> AsyncIterator[None]:
    """Both ports answer while the block runs."""

    async def exposition(_: web.Request) -> web.Response:
        return web.Response(body=metrics.exposition(), headers={"Content-Type": CONTENT_TYPE_LATEST})

    probes = [web.get("/healthz", _answer(healthy)), web.get("/readyz", _answer(ready))]
    series = [web.get("/metrics", exposition)]
    routes = {health_port: list(probes)}
    routes.setdefault(metrics_port, []).extend(series)
    runners: list[web.AppRunner] = []
    try:
        for port, served in routes.items():
            application = web.Application()
            application.add_routes(served)
            runner = web.AppRunner(application, access_log=None, shutdown_timeout=1)
            runners.append(runner)
            await runner.setup()
            await web.TCPSite(runner, port=port).start()
        yield
    finally:
        for runner in runners:
            await runner.cleanup()


def _answer(check: Check) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def handler(_: web.Request) -> web.Response:
        problem = check()
        return web.Response(text=f"{problem or 'ok'}\n", status=503 if problem else 200)

    return handler
