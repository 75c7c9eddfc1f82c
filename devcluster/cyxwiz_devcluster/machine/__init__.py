"""A whole Kubernetes on one machine: the control plane, and nodes with kubelet, containers and Services.

Root and a few Debian packages are needed; `why_not` says in a sentence what is missing. See docs/design/devcluster.md.
"""

from .images import Images
from .machine import Machine, start
from .place import FIRST_NODE
from .requirements import why_not

__all__ = ["FIRST_NODE", "Images", "Machine", "start", "why_not"]
