"""Reads an OpenAPI 3.x document, says what to ask by it, and judges the answers.

All of it runs in a process of its own (`__main__`), because the document is written by the code under test: a
regular expression or a schema that never ends must end that process, and not ours. `exchange` holds what is
said between the two. Nothing here sends a request.
"""
