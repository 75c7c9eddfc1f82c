"""Which job goes where, as pure functions over numpy columns: order, filter, score, place."""
