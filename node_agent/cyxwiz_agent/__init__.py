"""The agent of one node: registers it, keeps its Lease, admits the jobs bound to it and reports what they do.

It holds the API token and no GPU context; job processes belong to the runner, a process of its own.
"""
