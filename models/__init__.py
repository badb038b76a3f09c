"""The networks, what feeds them, how they are trained, tuned and exported."""
