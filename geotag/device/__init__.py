"""What the machine under us is: read from files, never set."""
