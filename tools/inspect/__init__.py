"""What lies in the shared memory of a pipeline, running or dead: `python -m tools.inspect`."""
