"""The engine on a real store and a real ledger, with the world replaced by a hand-written one."""
