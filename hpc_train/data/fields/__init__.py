"""Maps of several channels with a class a pixel: which channels and classes count, and how they are varied."""
