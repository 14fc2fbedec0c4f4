"""Faults against real worker processes on real brokers, and a verifier that shares no code with the program it judges."""
