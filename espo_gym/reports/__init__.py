"""What runs look like: curves, figures, the token inspector, and one HTML file for all of it."""
