"""A part of the application that is deployed by itself."""
