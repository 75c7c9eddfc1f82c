"""A whole Kubernetes on one machine: the control plane, and a node with kubelet, containers and Services.

Root and a few Debian packages are needed; `why_not` says in a sentence what is missing. See docs/design/devcluster.md.
"""

from .images import Images
from .machine import Machine, start
from .requirements import why_not

__all__ = ["Images", "Machine", "start", "why_not"]
