"""What `helm test` runs: a TrainingJob of real digits on a CPU, followed to its end; exits 1 unless it succeeds."""

import asyncio
import sys

from cyxwiz_kube import Kube, paths

WITHIN_S = 300
NAME = "cyxwiz-test"


async def main(namespace: str) -> int:
    """The exit code."""
    job = {
        "apiVersion": "cyxwiz.io/v1alpha1",
        "kind": "TrainingJob",
        "metadata": {"name": NAME, "namespace": namespace},
        "spec": {
            "model": {"name": "cnn"},
            "dataset": {"uri": "builtin://digits"},
            "epochs": 2,
            "resources": {"gpus": 0, "cpus": 1, "memory": "1Gi"},
            "activeDeadlineSeconds": WITHIN_S,
            "ttlSecondsAfterFinished": 3600,
        },
    }
    async with await Kube.connect(user_agent="cyxwiz-test") as kube:
        created = await kube.create(paths.training_jobs(namespace), job)
        path = paths.training_job(namespace, NAME)
        said = None
        try:
            for _ in range(WITHIN_S):
                status = (await kube.get(path)).get("status", {})
                summary = f"{status.get('phase')}: {status.get('summary', '')}"
                if summary != said:
                    print(summary, flush=True)
                    said = summary
                if status.get("phase") in ("Succeeded", "Failed", "Cancelled"):
                    return 0 if status["phase"] == "Succeeded" else 1
                await asyncio.sleep(1)
            print(f"not finished within {WITHIN_S} s")
            return 1
        finally:
            await kube.delete(path, uid=created["metadata"]["uid"])


sys.exit(asyncio.run(main(sys.argv[1])))
