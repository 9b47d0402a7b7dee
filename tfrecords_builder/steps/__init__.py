"""Steps of a build: scan, plan, shards, metadata."""
