"""Urban Atlas: tiles cut from scenes of cities, with their land use as masks."""
