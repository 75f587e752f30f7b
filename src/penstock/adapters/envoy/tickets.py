"""What the access log records of a user while an experiment runs: its salt, and the user's ticket.

Called by `config` (the listener's part) and `routes`. Pure. The release is told nothing of it.
"""

from __future__ import annotations

from typing import Any

Json = dict[str, Any]
FILTER = "envoy.filters.http.header_to_metadata"
FILTER_TYPE = "type.googleapis.com/envoy.extensions.filters.http.header_to_metadata.v3.Config"
SPACE, KEY = "penstock", "ticket"
#: The field of the log: the salt of the experiment, a colon, the ticket.
TICKET = f"%DYNAMIC_METADATA({SPACE}:{KEY})%"


def noting() -> Json:
    """The filter of a listener. It does nothing by itself: the routes say what to note."""
    return {"name": FILTER, "typed_config": {"@type": FILTER_TYPE}}


def noted(salt: str, kind: str, name: str) -> Json:
    """For a route whose requests have their ticket in a *kind* (``cookie`` or ``header``) called *name*."""
    rewrite = {"pattern": {"regex": "^.*$"}, "substitution": f"{salt}:\\0"}
    found = {"metadata_namespace": SPACE, "key": KEY, "regex_value_rewrite": rewrite}
    rule = {kind: name, "on_header_present": found}
    return {FILTER: {"@type": FILTER_TYPE, "request_rules": [rule]}}
