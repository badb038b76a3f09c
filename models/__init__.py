"""The networks, their input, and how they are trained, tuned and exported."""
