"""The version of CyxWiz, read by the build and told by its processes."""

__version__ = "0.1.0"
