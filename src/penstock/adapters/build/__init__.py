"""From a source tree to an image: two builders, the artifact store, and what tests need."""

from penstock.adapters.build.layout import Layout
from penstock.adapters.build.node import NodeBuilder
from penstock.adapters.build.python import PythonBuilder
from penstock.adapters.build.tools import ProjectTools

__all__ = ["Layout", "NodeBuilder", "ProjectTools", "PythonBuilder"]
