"""Owns the processes of training jobs: starts them, keeps warm ones, freezes, ends and reaps them.

A process of its own, so that a job neither sees the agent's API token nor dies with the agent. It speaks
`cyxwiz_protocol.runner_api` on a unix socket and never loads torch or a Kubernetes client.
"""
