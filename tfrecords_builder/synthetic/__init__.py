"""The generated world: a small consistent land cover from which the demo's and the tests' data are cut."""
