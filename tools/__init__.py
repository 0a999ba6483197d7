import pipeline  # noqa: F401 -- opens standard streams that are closed
