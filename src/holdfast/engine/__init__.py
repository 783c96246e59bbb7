"""Planning, pipelines, commit and retention. Works on NumPy arrays and stores; knows no framework and no user's state."""
