"""What the three processes of a node say to each other: the runner's socket and the files of a job's folder.

The contract between agent, runner and trainer, as cyxwiz_crds is the contract between user, operator and agent.
"""
