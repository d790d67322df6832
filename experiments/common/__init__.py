"""What every binary shares: command line, settings, training, files, tables and figures."""
