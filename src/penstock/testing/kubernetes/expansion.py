"""What a kubelet makes of ``$`` in commands and in the values of variables.

Called by `kubelet` and `podstatus`. Source: the fields ``command``, ``args`` and ``env.value`` of a Container
in Kubernetes' API reference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

_DOLLAR = re.compile(r"\$(?:\$|\(([^)]*)\))")


def expanded(text: str, known: Mapping[str, str]) -> str:
    """``$(NAME)`` is that variable, and stays as it is if it is not *known*; ``$$`` is one ``$``. Any other
    ``$`` is itself."""

    def instead(found: re.Match[str]) -> str:
        name = found[1]
        return "$" if name is None else known.get(name, found[0])

    return _DOLLAR.sub(instead, text)
