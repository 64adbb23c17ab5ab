"""What a person reads: tables and progress in the terminal."""
