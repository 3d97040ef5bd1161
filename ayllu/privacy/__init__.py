"""What protects people: personal data in texts is found and taken out. Free of torch."""
