"""Files of every released version of the format. They are never changed: what was saved once is read for ever."""
