"""What holds whatever strangers made: cage, openat2, names, privacy, the terminal."""
