"""What people type: `spreadq` and `sqm`."""
