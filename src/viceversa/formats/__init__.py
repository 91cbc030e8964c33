"""File formats that the libraries leave to us: 16 bit, colour profiles, films, animations."""
