"""What a node reads from, and writes to, the network on behalf of jobs: https://, s3:// and gs://.

It runs in a short process of its own that has the node's credentials and no job's code; agent, runner and trainer never
load it. No API token is near it.
"""
