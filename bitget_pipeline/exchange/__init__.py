"""What an exchange says and asks, in bytes on one side and in our words on the other: no socket, clock or file."""
