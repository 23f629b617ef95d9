"""Meshes as pictures and films, by processor alone: no window, no graphics driver."""
