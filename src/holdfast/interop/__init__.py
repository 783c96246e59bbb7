"""Files of others: what Fluid and Paddle wrote, read and written without them. One file per format; see docs/interop.md."""
