"""The pure core of spreadq: it decides, and does nothing itself. See `host` for how a role is run."""
