"""Moves bodies between members of groups. Knows no task."""
