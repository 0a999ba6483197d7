"""Real traffic on one machine: a client and two nginx replicas in namespaces, with the pipeline between them."""
