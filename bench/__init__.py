"""What spreadq costs: `python -m bench` measures it beside a raw floor in the same run."""
