"""From live objects to named variables and back; one file for each framework."""
