"""What several measurements of one benchmark share; nothing here is run by ``make bench``."""
