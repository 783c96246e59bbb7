"""Old formats, held against what real Fluid and Paddle wrote."""
