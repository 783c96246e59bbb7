"""The bytes of a checkpoint: names, headers, manifest. Pure: no I/O, no arrays, no framework. See docs/format.md."""
