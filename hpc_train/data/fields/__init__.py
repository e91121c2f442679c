"""Maps of several channels with a class for each pixel: their channels and classes, and how they are varied."""
