"""Rules of a space as a whole, each with its sentence; rules.py, the face of the room, has all."""
