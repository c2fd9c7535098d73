"""A small daemon that speaks Spread's client protocol, to be embedded in a program on one machine."""
