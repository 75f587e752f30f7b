"""What routers that write objects of Kubernetes have in common. Not an adapter, and not for others.

`routed` is the order of a change, the same for each; `written` keeps what was asked, by which fence, beside
the object, and finds what others changed; `backends` looks up whether a release can be reached; `matching`
orders rules for an API that would order them itself. Must not know the objects of one API.
"""
