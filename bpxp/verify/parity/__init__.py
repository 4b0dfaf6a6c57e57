"""A backend beside float64."""
