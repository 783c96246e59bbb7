"""The command line, as it is called: in this process, in another one, and on a terminal."""
