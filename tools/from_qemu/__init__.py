"""A QEMU command line becomes a config.toml: `python -m tools.from_qemu`; docs/from_qemu.md says how."""
