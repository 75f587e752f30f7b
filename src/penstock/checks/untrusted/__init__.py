"""What is computed from texts of the code under test: OpenAPI documents, and rules for comparing answers.

All of it runs in a process of its own (`__main__`): a regular expression or a schema that never ends must end
that process, and not ours. `exchange` holds what is said between the two. Nothing here sends a request.
"""
