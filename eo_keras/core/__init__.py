"""Files, output folders, engines and other services without knowledge of Earth observation."""
