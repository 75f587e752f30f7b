"""Random and mutated bytes for every parser of outside input: one table, two ways to run it."""
