"""Language: Rego v1, by rego-cpp (`regopy`), for policies that an organisation has already.

Found as ``penstock.language: rego``. `language` compiles and decides; `tokens` and `syntax` read a module,
`check` refuses what could silently never fire (`types` and `builtins` are its tables); `engine` asks
`child`, a process of its own that can be killed. Only `child` imports the client library.
"""

from penstock.adapters.rego.language import Rego

__all__ = ["Rego"]
