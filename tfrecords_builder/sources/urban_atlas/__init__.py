"""Urban Atlas: tiles cut from scenes of cities, with land use as masks."""
