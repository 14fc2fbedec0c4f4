"""The core does no I/O: no files, sockets, threads, clocks, randomness or logging. Anything can drive it."""
