"""What happens when a number of a fit is NaN or infinite."""
