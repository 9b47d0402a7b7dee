"""Records of tiles: scenes of cities and the land use of their ground, cut on a grid with a stride."""
