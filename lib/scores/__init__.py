"""What predictions and attention are worth."""
