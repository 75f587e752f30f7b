"""What a Rego policy may use up. Read by `engine` and by `child`."""

#: For one decision, in the eyes of the process that waits.
SECONDS = 2.0
#: For the process to load its library, on a machine that is busy.
START_SECONDS = 20.0
#: For one decision, in the eyes of the kernel, if nobody waits any more.
CPU_SECONDS = 3
#: Of the process, its library included.
MEMORY = 512 * 1024 * 1024
MAX_ANSWER = 1024 * 1024
