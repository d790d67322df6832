"""What the binaries do when something is wrong: odd input, kills, damaged files, long runs."""
