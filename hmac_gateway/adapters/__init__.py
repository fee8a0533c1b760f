"""What stands between a host's request objects and the engine: one file per host."""
