"""One training process: it becomes warm, is told one job folder, trains, and leaves with an exit code.

The only importer of torch in CyxWiz. It talks through the files of its folder and knows no Kubernetes.
"""
